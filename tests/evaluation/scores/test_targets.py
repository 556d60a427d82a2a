"""Time to target, and the target."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.evaluation.scores.targets import reference_target, study_time, task_times, time_to_target

CLOCK = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
METRIC = np.array([[0.9, 0.5, 0.6, 0.4, 0.3], [0.9, 0.9, 0.9, 0.9, 0.4], [0.9, 0.9, 0.9, 0.9, 0.9], [0.2, np.nan, 0.2, 0.2, np.nan]]).T


@pytest.mark.parametrize(
    ("evaluations", "times"),
    [
        (1, [2.0, 16.0, np.inf, 1.0]),  # AlgoPerf's
        (2, [8.0, np.inf, np.inf, 4.0]),  # the first run leaves the target at 4; the second cannot confirm it
        (3, [np.inf] * 4),
        (6, [np.inf] * 4),  # more than there are
    ],
)
def test_a_target_must_hold_for_so_many_evaluations(evaluations, times):
    assert time_to_target(CLOCK, METRIC, 0.5, evaluations).tolist() == times


@given(
    st.lists(st.lists(st.sampled_from([0.2, 0.5, 0.8, np.nan]), min_size=6, max_size=6), min_size=1, max_size=4),
    st.integers(1, 7),
    st.floats(0.0, 1.0),
)
def test_time_to_target_equals_a_loop(runs, evaluations, target):
    clock = np.cumsum(np.arange(1.0, 7.0))
    expected = []
    for run in runs:
        starts = [i for i in range(6 - evaluations + 1) if all(value <= target for value in run[i : i + evaluations])]
        expected.append(clock[starts[0]] if starts else np.inf)
    times = time_to_target(clock, np.array(runs).T, target, evaluations)
    assert times.tolist() == expected
    assert (time_to_target(clock, np.array(runs).T, target, evaluations + 1) >= times).all(), "more to confirm is never sooner"
    assert (time_to_target(clock, np.array(runs).T, target + 0.1, evaluations) <= times).all(), "an easier target is never later"


def test_the_clock_is_any_unit():
    seconds = time_to_target(0.5 * CLOCK, METRIC, 0.5)
    assert seconds.tolist() == [1.0, 8.0, np.inf, 0.5]


@pytest.mark.parametrize(("metric", "evaluations"), [(METRIC[:-1], 1), (METRIC[:, 0], 1), (METRIC, 0)])
def test_shapes_that_do_not_fit_are_refused(metric, evaluations):
    with pytest.raises(ValueError, match=r"metric must be \[5, S\] and evaluations >= 1"):
        time_to_target(CLOCK, metric, 0.5, evaluations)


def test_the_target_is_the_best_median_over_seeds_of_the_best_value():
    metrics = {
        "sgd": np.array([[0.9, 0.9, 0.9], [0.5, 0.6, 0.1], [0.7, 0.8, 0.9]]),  # best values 0.5, 0.6, 0.1
        "adam": np.array([[0.9, 0.9, 0.9], [0.4, np.nan, 0.7], [0.6, 0.45, np.nan]]),  # 0.4, 0.45, 0.7
        "lost": np.full((3, 3), np.nan),
    }
    assert reference_target(metrics) == ("adam", 0.45)
    assert reference_target({"b": metrics["sgd"], "a": metrics["sgd"]}) == ("a", 0.5), "ties go to the first name"
    for nothing in ({}, {"lost": metrics["lost"]}):
        with pytest.raises(ValueError, match="no baseline gives a finite target"):
            reference_target(nothing)


def test_a_miss_takes_part_in_the_median_of_studies():
    """The median over three studies of the fastest of their trials."""
    inf = np.inf
    assert study_time(np.array([[3.0, 9.0], [5.0, 4.0], [inf, 7.0]])) == 4.0
    assert study_time(np.array([[3.0, inf], [inf, inf], [7.0, 8.0]])) == 7.0
    assert study_time(np.array([[3.0, 1.0], [inf, inf], [inf, inf]])) == inf
    assert study_time(np.array([[[3.0]], [[inf]]])).tolist() == [3.0, inf]


def test_the_time_of_a_task_is_the_median_of_its_runs():
    times = np.array([[[1.0, 2.0, np.inf], [np.inf, np.inf, 1.0]], [[3.0, 4.0, 5.0], [2.0, 2.0, np.inf]]])
    assert task_times(times).tolist() == [3.5, np.inf]
    assert task_times(times[:1]).tolist() == [2.0, np.inf]
    assert task_times(np.stack([times, times + 1])).tolist() == [[3.5, np.inf], [4.5, np.inf]]
