"""Aggregates and intervals: the vectors that every implementation must give, then properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.evaluation.statistics import (
    AXES,
    ScoreCube,
    bootstrap,
    interquartile_mean,
    optimality_gap,
    probability_of_improvement,
    under_covered,
)


def cube(values, **kwargs):
    values = np.asarray(values, dtype=float)
    _, tasks, seeds = values.shape
    return ScoreCube(values, tuple(f"task{i}" for i in range(tasks)), tuple(range(seeds)), axes=AXES, **kwargs)


def random_cube(seed, tasks=4, seeds=5, meta_seeds=1):
    return cube(np.random.default_rng(seed).normal(size=(meta_seeds, tasks, seeds)))


def one_task(values):
    return np.asarray(values, dtype=float)[None, None]


def test_interquartile_mean_drops_a_quarter_at_either_end():
    assert interquartile_mean(one_task(range(8))) == 3.5
    assert interquartile_mean(one_task([-100.0, 1.0, 2.0, 300.0])) == 1.5
    assert interquartile_mean(one_task([7.0])) == 7.0
    assert interquartile_mean(one_task([1.0, 2.0, 6.0])) == 3.0  # floor(3 / 4) = 0 are dropped


def test_interquartile_mean_takes_runs_of_all_tasks_together():
    values = np.arange(8.0).reshape(1, 2, 4)
    assert interquartile_mean(values) == 3.5
    assert interquartile_mean(np.stack([values, values + 1])).tolist() == [3.5, 4.5]


def test_optimality_gap_counts_shortfalls_only():
    assert optimality_gap(one_task([0.5, 2.0])) == 0.25
    assert optimality_gap(one_task([0.5, 2.0]), target=2.0) == 0.75


def test_probability_of_improvement_over_all_pairs_of_runs():
    assert probability_of_improvement(one_task([1, 2, 3]), one_task([0, 2, 4])) == 0.5
    same = np.random.default_rng(0).normal(size=(1, 3, 4))
    assert probability_of_improvement(same, same) == 0.5
    assert probability_of_improvement(same + 100, same) == 1.0
    assert probability_of_improvement(same, same + 100) == 0.0


def test_probability_of_improvement_equals_a_loop_with_meta_seeds():
    generator = np.random.default_rng(3)
    left, right = generator.integers(4, size=(2, 3, 5)).astype(float), generator.integers(4, size=(2, 3, 5)).astype(float)
    tasks = [np.mean([(x > y) + 0.5 * (x == y) for x in left[:, j].ravel() for y in right[:, j].ravel()]) for j in range(3)]
    assert probability_of_improvement(left, right) == pytest.approx(np.mean(tasks))


def test_equal_generators_give_equal_intervals_and_constant_scores_no_width():
    scores = random_cube(0)
    first, second = (bootstrap([scores], interquartile_mean, np.random.default_rng(7)) for _ in range(2))
    assert first == second
    assert first.low < first.value < first.high
    constant = bootstrap([cube(np.full((1, 3, 4), 0.25))], interquartile_mean, np.random.default_rng(0))
    assert (constant.low, constant.value, constant.high) == (0.25, 0.25, 0.25)


def test_the_order_of_tasks_changes_nothing():
    scores = random_cube(1)
    order = [2, 0, 3, 1]
    shuffled = ScoreCube(scores.values[:, order], tuple(scores.tasks[i] for i in order), scores.seeds, axes=AXES)
    intervals = [bootstrap([one], interquartile_mean, np.random.default_rng(0)) for one in (scores, shuffled)]
    assert intervals[0] == intervals[1]


def test_swapped_axes_are_refused_even_when_the_shape_would_fit():
    values = np.zeros((1, 5, 5))
    names, seeds = tuple("abcde"), tuple(range(5))
    with pytest.raises(ValueError, match="axes must be"):
        ScoreCube(values, names, seeds, axes=("meta_seed", "seed", "task"))
    with pytest.raises(ValueError, match=r"values must be \[M, 3 tasks, 5 seeds\], got shape \(1, 5, 3\)"):
        ScoreCube(np.zeros((1, 5, 3)), tuple("abc"), seeds, axes=AXES)


@pytest.mark.parametrize(
    ("values", "tasks", "message"),
    [
        (np.full((1, 1, 2), np.nan), ("a",), "values must be finite"),
        (np.zeros((1, 2, 2)), ("a", "a"), "must be unique"),
        (np.zeros((1, 0, 2)), (), "values must be"),
    ],
)
def test_bad_cubes_are_refused(values, tasks, message):
    with pytest.raises(ValueError, match=message):
        ScoreCube(values, tasks, (0, 1), axes=AXES)


def test_differences_are_bootstrapped_in_pairs():
    """A constant shift has no width when the draws are shared; two separate intervals would."""
    scores = random_cube(2)
    shifted = cube(scores.values + 0.5)

    def gain(left, right):
        return left.mean(axis=(-3, -2, -1)) - right.mean(axis=(-3, -2, -1))

    interval = bootstrap([shifted, scores], gain, np.random.default_rng(0))
    assert interval.low == pytest.approx(0.5)
    assert interval.high == pytest.approx(0.5)
    with pytest.raises(ValueError, match="must share tasks, seeds"):
        bootstrap([scores, random_cube(2, tasks=3)], gain, np.random.default_rng(0))


def test_identical_learners_have_even_odds_inside_their_interval():
    scores = random_cube(4, tasks=8)
    interval = bootstrap([scores, scores], probability_of_improvement, np.random.default_rng(0))
    assert interval.value == 0.5
    assert interval.low <= 0.5 <= interval.high


def test_meta_seeds_are_resampled_as_wholes():
    """With seeds that agree inside each meta-seed, all width comes from the meta-seeds."""
    between = np.broadcast_to(np.array([0.0, 1.0, 2.0, 3.0])[:, None, None], (4, 3, 5))
    wide = bootstrap([cube(between)], lambda x: x.mean(axis=(-3, -2, -1)), np.random.default_rng(0))
    assert wide.high - wide.low > 1.0
    within = bootstrap([cube(between[:1])], lambda x: x.mean(axis=(-3, -2, -1)), np.random.default_rng(0))
    assert within.high == within.low


def test_coverage_of_normal_scores_is_near_what_is_documented():
    """Ten tasks of five seeds: the 95 % percentile interval of a mean holds about 90 %, hence the under-covered flag."""
    hits = 0
    for seed in range(200):
        interval = bootstrap([random_cube(seed, tasks=10)], lambda x: x.mean(axis=(-3, -2, -1)), np.random.default_rng(seed), resamples=300)
        hits += interval.low <= 0.0 <= interval.high
    assert 0.82 <= hits / 200 <= 0.96


def test_too_few_meta_seeds_or_tasks_are_flagged():
    assert under_covered(1, 24)
    assert under_covered(5, 9)
    assert not under_covered(5, 10)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(-10, 10))
def test_interquartile_mean_shifts_with_its_runs_and_stays_inside_them(values, shift):
    runs = one_task(values)
    mean = float(interquartile_mean(runs))
    assert min(values) - 1e-9 <= mean <= max(values) + 1e-9
    assert interquartile_mean(runs + shift) == pytest.approx(mean + shift, abs=1e-9)
