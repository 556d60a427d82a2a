"""Benchmark scores: the published vectors, the integral on a grid, and what the field may and may not change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from metaopt.evaluation.scores.algoperf import algoperf_score, geometric_mean_speed_up, performance_ratios, reference_fixed_score

TIMES = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.one_of(st.floats(0.5, 100), st.just(np.inf)))
A, B, C = np.array([10.0, 20.0]), np.array([20.0, 10.0]), np.array([5.0, 5.0])


def test_the_score_depends_on_the_field():
    assert algoperf_score(np.array([A, B])) == pytest.approx([5 / 6, 5 / 6])
    assert performance_ratios(np.array([A, B, C]))[0].tolist() == [2.0, 4.0]
    assert algoperf_score(np.array([A, B, C])) == pytest.approx([1 / 3, 1 / 3, 1.0])


def test_with_a_fixed_reference_it_does_not():
    assert reference_fixed_score(A, B) == pytest.approx(5 / 6)
    assert reference_fixed_score(np.array([A, B, C]), B) == pytest.approx([5 / 6, 1.0, 1.0])
    assert reference_fixed_score(A, A) == 1.0
    assert reference_fixed_score(C, A) == 1.0, "faster than the reference counts as equal to it"


@given(TIMES, st.floats(1.1, 8.0))
def test_the_closed_form_is_the_integral_of_the_profile(times, limit):
    """Mean of rho over a fine grid of midpoints; each workload is off by at most one cell."""
    ratios = performance_ratios(times)
    cells = 2000
    tau = 1.0 + (np.arange(cells) + 0.5) * (limit - 1.0) / cells
    profile = (ratios[:, :, None] <= tau).mean(axis=1)
    assert algoperf_score(times, limit) == pytest.approx(profile.mean(axis=1), abs=1.0 / cells)


@given(TIMES, st.floats(0.1, 10.0), st.randoms(use_true_random=False))
def test_neither_the_unit_of_time_nor_the_order_of_workloads_matters(times, scale, random):
    order = random.sample(range(times.shape[1]), times.shape[1])
    for score in (algoperf_score, lambda one: reference_fixed_score(one, one[0])):
        assert score(scale * times[:, order]) == pytest.approx(score(times))
    budget = np.full(times.shape[1], 100.0)
    assert geometric_mean_speed_up(times[:, order], times[0, order], budget) == pytest.approx(
        geometric_mean_speed_up(times, times[0], budget)
    )


@given(TIMES)
def test_one_who_misses_everything_is_the_worst_everywhere(times):
    field = np.concatenate([times, np.full((1, times.shape[1]), np.inf)])
    budget = np.full(times.shape[1], 100.0)
    for score in (algoperf_score(field), reference_fixed_score(field, times[0])):
        assert score[-1] == 0.0
        assert ((score >= 0.0) & (score <= 1.0)).all()
    speeds = geometric_mean_speed_up(field, times[0], budget)
    assert speeds[-1] == pytest.approx(speeds.min())


def test_where_everybody_misses_nobody_scores():
    times = np.array([[5.0, np.inf], [10.0, np.inf]])
    assert performance_ratios(times).tolist() == [[1.0, np.inf], [2.0, np.inf]]
    assert algoperf_score(times) == pytest.approx([0.5, 1 / 3])


def test_misses_on_either_side_of_a_fixed_reference():
    inf = np.inf
    times, reference = np.array([inf, 5.0, inf]), np.array([5.0, inf, inf])
    assert reference_fixed_score(times, reference) == pytest.approx(1 / 3), "only the second was reached"
    budget = np.array([9.0, 9.0, 9.0])
    assert geometric_mean_speed_up(times, reference, budget) == pytest.approx((5 / 10 * 10 / 5 * 1) ** (1 / 3))


def test_a_miss_takes_one_more_than_the_budget():
    budget = np.array([9.0])
    assert geometric_mean_speed_up(np.array([np.inf]), np.array([5.0]), budget) == pytest.approx(5 / 10)
    assert geometric_mean_speed_up(np.array([9.0]), np.array([np.inf]), budget) == pytest.approx(10 / 9)


def test_geometric_mean_speed_up_is_symmetric():
    budget = np.array([100.0, 100.0])
    assert geometric_mean_speed_up(A, A, budget) == 1.0
    assert geometric_mean_speed_up(C, A, budget) == pytest.approx(np.sqrt(8.0))
    assert geometric_mean_speed_up(A, C, budget) == pytest.approx(1 / np.sqrt(8.0))
    assert geometric_mean_speed_up(np.array([A, B, C]), B, budget) == pytest.approx([1.0, 1.0, np.sqrt(8.0)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: algoperf_score(np.array([[0.0, 1.0]])), "times must be > 0"),
        (lambda: performance_ratios(np.array([[np.nan, 1.0]])), "times must be > 0"),
        (lambda: reference_fixed_score(A, -B), "times must be > 0"),
        (lambda: geometric_mean_speed_up(A, 0.0 * B, np.array([99.0, 99.0])), "times must be > 0"),
        (lambda: geometric_mean_speed_up(A, B, np.array([20.0, 19.0])), "above its budget"),
        (lambda: geometric_mean_speed_up(B, C, np.array([19.0, 20.0])), "above its budget"),
        (lambda: algoperf_score(np.array([A]), limit=1.0), "limit must be > 1, got 1.0"),
        (lambda: reference_fixed_score(A, B, limit=0.5), "limit must be > 1, got 0.5"),
    ],
)
def test_impossible_times_and_limits_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
