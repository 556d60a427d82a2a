"""Comparing two learners: vectors, brute force over pairs and relabellings, properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.evaluation.statistics.aggregates import interquartile_mean, overall_mean
from metaopt.evaluation.statistics.improvement import holm, paired_difference, permutation_p_value, probability_of_improvement
from metaopt.evaluation.statistics.resampling import bootstrap
from tests.evaluation.cubes import cube, permuted, random_cube


def one_task(values):
    return np.asarray(values, dtype=float)[None, None]


def seeded(seed=0):
    return np.random.default_rng(seed)


def test_probability_of_improvement_over_all_pairs_of_runs():
    assert probability_of_improvement(one_task([1, 2, 3]), one_task([0, 2, 4])) == 0.5
    same = np.random.default_rng(0).normal(size=(1, 3, 4))
    assert probability_of_improvement(same, same) == 0.5
    assert probability_of_improvement(same + 100, same) == 1.0
    assert probability_of_improvement(same, same + 100) == 0.0


def test_probability_of_improvement_equals_a_loop_with_meta_seeds():
    generator = np.random.default_rng(3)
    left, right = generator.integers(4, size=(2, 3, 5)).astype(float), generator.integers(4, size=(4, 3, 2)).astype(float)
    tasks = [np.mean([(x > y) + 0.5 * (x == y) for x in left[:, j].ravel() for y in right[:, j].ravel()]) for j in range(3)]
    assert probability_of_improvement(left, right) == pytest.approx(np.mean(tasks))
    stacked = probability_of_improvement(np.stack([left, left + 9.0]), np.stack([right, right]))
    assert stacked == pytest.approx([np.mean(tasks), 1.0])


@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_what_one_wins_the_other_loses_and_order_and_scale_do_not_matter(seed, order):
    left, right = seeded(seed).integers(5, size=(2, 2, 3, 4)).astype(float)
    odds = probability_of_improvement(left, right)
    assert odds + probability_of_improvement(right, left) == pytest.approx(1.0)
    assert probability_of_improvement(left[:, order], right[:, order]) == pytest.approx(odds)
    assert probability_of_improvement(np.exp(left), np.exp(right)) == pytest.approx(odds)


def test_a_learner_that_fails_everywhere_loses_against_everyone_else():
    scores = random_cube(0, tasks=12)
    failing = cube(np.full(scores.values.shape, scores.values.min() - 1.0))
    interval = bootstrap([failing, scores], probability_of_improvement, seeded())
    assert (interval.low, interval.value, interval.high) == (0.0, 0.0, 0.0)


def test_the_interval_of_a_difference_is_that_of_its_resamples():
    left, right = random_cube(1, meta_seeds=3), random_cube(2, meta_seeds=3)
    interval = paired_difference(left, right, seeded(4), resamples=300)
    assert interval.value == pytest.approx(interquartile_mean(left.values) - interquartile_mean(right.values))
    mean = paired_difference(left, right, seeded(4), overall_mean, resamples=300)
    alone = bootstrap([cube(left.values - right.values)], overall_mean, seeded(4), resamples=300)
    assert (mean.value, mean.low, mean.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_pairing_narrows_the_interval_of_scores_that_share_their_seeds():
    """Two learners that see the same noise: its width cancels in the difference only."""
    noise = seeded(5).normal(size=(1, 10, 5))
    left, right = cube(noise + 0.1), cube(noise + 0.01 * seeded(6).normal(size=noise.shape))
    together = paired_difference(left, right, seeded(), overall_mean)
    apart = bootstrap([left], overall_mean, seeded())
    assert together.high - together.low < 0.1 * (apart.high - apart.low)
    assert together.low > 0.0
    same = paired_difference(left, left, seeded())
    assert (same.low, same.value, same.high) == (0.0, 0.0, 0.0)


def test_new_tasks_widen_a_difference_that_depends_on_the_task():
    left = cube(np.broadcast_to(np.arange(6.0)[None, :, None], (1, 6, 4)))
    right = cube(np.zeros((1, 6, 4)))
    assert paired_difference(left, right, seeded()).low == pytest.approx(2.5)
    assert paired_difference(left, right, seeded(), new_tasks=True).low < 2.0


@pytest.mark.parametrize(("units", "smallest"), [(3, 0.100), (4, 0.029), (5, 0.0079)])
def test_the_smallest_p_value_is_two_of_all_splits(units, smallest):
    base = seeded(0).normal(size=(units, 2, 3))
    better, reference = cube(base + 100.0), cube(base)
    assert permutation_p_value(better, reference, seeded()) == pytest.approx(smallest, abs=0.0005)
    assert permutation_p_value(reference, better, seeded()) == pytest.approx(smallest, abs=0.0005)
    one_task = [cube(one.values[:, :1, :1].transpose(2, 1, 0)) for one in (better, reference)]
    assert permutation_p_value(*one_task, seeded()) == pytest.approx(smallest, abs=0.0005)


def test_identical_learners_have_p_one():
    scores = random_cube(0, meta_seeds=4)
    assert permutation_p_value(scores, scores, seeded()) == 1.0
    assert permutation_p_value(cube(scores.values[:1]), cube(scores.values[:1]), seeded()) == 1.0


@pytest.mark.parametrize(("left_shape", "right_shape"), [((4, 3, 2), (4, 3, 2)), ((1, 2, 4), (1, 2, 4)), ((2, 2, 2), (1, 2, 3))])
def test_p_values_equal_brute_force_over_relabellings(left_shape, right_shape):
    """Every relabelling as its own call of the probability of improvement, on the runs themselves."""
    generator = seeded(sum(left_shape))
    left, right = generator.normal(size=left_shape).round(1) + 0.4, generator.normal(size=right_shape).round(1)
    if right_shape[0] > 1:
        pool = np.concatenate([left, right])
        chosen = [list(one) for one in itertools.combinations(range(len(pool)), len(left))]
        found = [probability_of_improvement(pool[one], np.delete(pool, one, axis=0)) for one in chosen]
    else:
        found = [
            np.mean(odds) for odds in itertools.product(*(list(splits_of_task(left[:, j], right[:, j])) for j in range(left.shape[1])))
        ]
    observed = probability_of_improvement(left, right)
    expected = np.mean(np.abs(np.array(found) - 0.5) >= abs(observed - 0.5) - 1e-9)
    assert permutation_p_value(cube(left), cube(right, seeds=tuple(range(right_shape[2]))), seeded()) == pytest.approx(expected)


def splits_of_task(left, right):
    pool = np.concatenate([left.ravel(), right.ravel()])
    for one in itertools.combinations(range(len(pool)), left.size):
        ours, theirs = pool[list(one)], np.delete(pool, one)
        yield probability_of_improvement(ours[None, None], theirs[None, None])


def test_seeds_of_different_tasks_are_relabelled_apart():
    """A learner that is a little better on every one of many tasks: five seeds are enough to see it."""
    noise = seeded(0).normal(size=(2, 1, 12, 5))
    better, reference = cube(noise[0] + 0.8), cube(noise[1])
    assert permutation_p_value(better, reference, seeded()) < 1e-3
    assert permutation_p_value(cube(better.values[:, :1]), cube(reference.values[:, :1]), seeded()) > 0.005


def test_p_values_do_not_depend_on_tasks_order_or_a_monotone_change():
    left, right = random_cube(1, meta_seeds=4), random_cube(2, meta_seeds=4)
    p = permutation_p_value(left, right, seeded())
    order = [3, 1, 0, 2]
    assert permutation_p_value(permuted(left, order), permuted(right, order), seeded()) == p
    assert permutation_p_value(cube(np.exp(left.values)), cube(np.exp(right.values)), seeded()) == p


def test_many_units_are_relabelled_at_random():
    """12 against 12 units have 2.7 million splits; the drawn share is near that of the exact test of ranks."""
    from scipy.stats import mannwhitneyu

    left, right = seeded(0).normal(size=12) + 0.6, seeded(1).normal(size=12)
    exact = mannwhitneyu(left, right, method="exact").pvalue
    p = permutation_p_value(cube(left[:, None, None]), cube(right[:, None, None]), seeded())
    assert p == pytest.approx(exact, abs=0.01)
    assert p == permutation_p_value(cube(left[:, None, None]), cube(right[:, None, None]), seeded())
    far = permutation_p_value(cube(left[:, None, None] + 100), cube(right[:, None, None]), seeded())
    assert 0.0 < far < 1e-3, "never zero: the observed split is one of them"


def test_false_alarms_come_as_often_as_promised():
    """Under the null, p <= 0.05 in at most 5 % of the cases; for one task of continuous scores it is the rank test."""
    alarms = [permutation_p_value(random_cube(2 * s, 3, 2, 5), random_cube(2 * s + 1, 3, 2, 5), seeded()) <= 0.05 for s in range(300)]
    assert np.mean(alarms) <= 0.085


def test_learners_on_different_tasks_are_refused():
    with pytest.raises(ValueError, match="must share their tasks"):
        permutation_p_value(random_cube(1, meta_seeds=2), random_cube(0, tasks=3, meta_seeds=2), seeded())


def test_holm_multiplies_by_what_is_left_and_never_falls():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert list(holm({"b": 0.2, "a": 0.1})) == ["b", "a"]
    assert holm({"a": 0.05}) == {"a": 0.05}
    with pytest.raises(ValueError, match=r"p-values must be in \[0, 1\], got {'b': 1.5}"):
        holm({"a": 0.5, "b": 1.5})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_what_stepping_down_rejects(p_values, level):
    """The procedure itself: from the smallest on, reject while p (m - rank) <= level."""
    named = {f"h{i}": p for i, p in enumerate(p_values)}
    rejected = set()
    for rank, name in enumerate(sorted(named, key=named.__getitem__)):
        if named[name] * (len(named) - rank) > level:
            break
        rejected.add(name)
    adjusted = holm(named)
    assert {name for name, p in adjusted.items() if p <= level} == rejected
    assert all(adjusted[name] >= p for name, p in named.items())
