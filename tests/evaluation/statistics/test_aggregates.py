"""Aggregates: the vectors that every implementation must give, brute force, then properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from metaopt.evaluation.statistics.aggregates import interquartile_mean, median_of_task_means, optimality_gap, overall_mean, worst_decile

AGGREGATES = (interquartile_mean, overall_mean, median_of_task_means, worst_decile)
SCORES = arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-100, 100))


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


def test_the_median_is_over_tasks_and_blind_to_half_of_them():
    values = np.array([[[0.0, 2.0], [5.0, 7.0], [9.0, 9.0]]])
    assert median_of_task_means(values) == 6.0
    assert median_of_task_means(np.where(values == 0.0, -1e6, values)) == 6.0
    assert median_of_task_means(np.concatenate([values, values + 2.0])) == 7.0, "meta-seeds are averaged with the runs"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (range(20), 0.5),  # the two worst of twenty
        (range(10), 0.0),  # the worst of ten
        (range(5), 0.0),  # less than one run is one
        (range(15), (0.0 + 0.5 * 1.0) / 1.5),  # one run and a half
        ([3.0], 3.0),
    ],
)
def test_the_worst_decile_is_the_mean_of_a_tenth_of_the_runs(values, expected):
    assert worst_decile(one_task(values)) == pytest.approx(expected)


def test_a_tail_of_everything_is_the_mean_and_bad_tails_are_refused():
    values = np.random.default_rng(0).normal(size=(2, 3, 5))
    assert worst_decile(values, frac=1.0) == pytest.approx(overall_mean(values))
    for frac in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"frac must be in \(0, 1\]"):
            worst_decile(values, frac=frac)


def test_aggregates_equal_loops_over_runs():
    generator = np.random.default_rng(1)
    for shape in ((1, 3, 5), (4, 6, 3), (2, 11, 2)):
        values = generator.normal(size=shape)
        runs = sorted(values.ravel().tolist())
        cut = int(0.25 * len(runs))
        middle = runs[cut : len(runs) - cut]
        assert interquartile_mean(values) == pytest.approx(sum(middle) / len(middle))
        means = sorted(
            sum(values[i, j, k] for i in range(shape[0]) for k in range(shape[2])) / (shape[0] * shape[2]) for j in range(shape[1])
        )
        half = len(means) // 2
        assert median_of_task_means(values) == pytest.approx(means[half] if len(means) % 2 else (means[half - 1] + means[half]) / 2)
        fine = sorted(np.repeat(runs, 10).tolist())[: len(runs)]  # a tenth of ten copies is a whole number of runs
        assert worst_decile(values) == pytest.approx(sum(fine) / len(fine))


@pytest.mark.parametrize("aggregate", [*AGGREGATES, optimality_gap])
def test_leading_axes_are_resamples(aggregate):
    values = np.random.default_rng(2).normal(size=(3, 4, 2, 5, 3))
    together = aggregate(values)
    assert together.shape == (3, 4)
    assert together[2, 1] == pytest.approx(aggregate(values[2, 1]))


@given(SCORES, st.floats(-10, 10), st.floats(0.1, 10))
def test_aggregates_shift_and_scale_with_the_scores_and_stay_inside_them(values, shift, scale):
    for aggregate in AGGREGATES:
        number = float(aggregate(values))
        assert values.min() - 1e-9 <= number <= values.max() + 1e-9
        assert aggregate(scale * values + shift) == pytest.approx(scale * number + shift, abs=1e-7)


@given(SCORES, st.randoms(use_true_random=False))
def test_the_order_of_runs_and_tasks_changes_nothing(values, random):
    orders = [random.sample(range(n), n) for n in values.shape]
    shuffled = values[np.ix_(*orders)]
    for aggregate in (*AGGREGATES, optimality_gap):
        assert aggregate(shuffled) == pytest.approx(aggregate(values), abs=1e-9)


@given(SCORES)
def test_a_run_that_fails_never_helps(values):
    """The worst of all scores in one place lowers every aggregate, or leaves it."""
    worse = values.copy()
    worse.flat[0] = values.min() - 1.0
    for aggregate in AGGREGATES:
        assert aggregate(worse) <= aggregate(values) + 1e-9
    assert worst_decile(values) <= interquartile_mean(values) + 1e-9
