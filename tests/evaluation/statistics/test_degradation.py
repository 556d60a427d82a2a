"""Degradation curves: closed forms, loops over levels, and what happens to a learner that does not work at home."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.evaluation.statistics.aggregates import interquartile_mean, overall_mean
from metaopt.evaluation.statistics.degradation import (
    Level,
    area_over_log,
    break_point,
    degradation_curve,
    falls_throughout,
    retention,
    slope_per_doubling,
)
from metaopt.evaluation.statistics.resampling import Interval, bootstrap
from tests.evaluation.cubes import cube, permuted, random_cube

SHIFTS = np.array([1.0, 2.0, 5.0, 10.0, 50.0])


def seeded(seed=0):
    return np.random.default_rng(seed)


def levels(*factors, inside=(1.0, 2.0)):
    return [Level(f"x{factor:g}", factor, factor in inside) for factor in factors]


def constant(*scores):
    """A cube of 3 tasks and 4 seeds a level, in which every run has the level's score."""
    return [cube(np.full((1, 3, 4), score)) for score in scores]


def test_retention_is_relative_to_home():
    assert retention(np.array([0.4, 0.8, 0.2]), 1).tolist() == [0.5, 1.0, 0.25]
    stacked = retention(np.array([[0.4, 0.8], [0.4, 0.0], [0.1, -0.5]]), 1)
    assert stacked[0].tolist() == [0.5, 1.0]
    assert np.isnan(stacked[1:]).all()


@pytest.mark.parametrize(
    ("kept", "s50"),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.0], math.inf),
        ([1.0, 0.9, 0.7, 0.5, 0.5], math.inf),  # never below one half
        ([1.0, 0.5, 0.4, 0.3, 0.2], 2.0),
        ([1.0, 0.0, 0.0, 0.0, 0.0], 1.5),
        ([1.0, 0.8, 0.2, 0.9, 0.1], 3.5),  # the first time counts
        ([1.0, 0.9, 0.8, 0.7, 0.2], 10.0 + 40.0 * 0.4),
        ([1.0, 1.0, 1.0, 1.0, -1.0], 20.0),
        ([np.nan] * 5, math.nan),
    ],
)
def test_the_break_point_is_the_first_fall_below_one_half(kept, s50):
    assert break_point(np.array(kept), SHIFTS) == pytest.approx(s50, nan_ok=True)


def test_break_points_of_many_resamples_at_once():
    kept = np.array([[1.0, 0.9, 0.1, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0], [np.nan] * 5, [1.0, 0.4, 0.9, 0.9, 0.9]])
    expected = [2.0 + 3.0 * 0.5, np.inf, np.nan, 1.0 + 0.5 / 0.6]
    assert break_point(kept, SHIFTS) == pytest.approx(expected, nan_ok=True)
    assert break_point(kept[0], SHIFTS, threshold=0.95) == pytest.approx(1.5)


@given(st.lists(st.integers(-10, 15), min_size=4, max_size=4), st.sampled_from([0.25, 0.45, 0.55, 0.75]))
def test_the_break_point_is_where_the_broken_line_crosses(rest, threshold):
    """Retentions in tenths, thresholds between them, so that a grid of thousandths sees every crossing."""
    kept = np.array([1.0, *(value / 10 for value in rest)])
    fine = np.linspace(1.0, 50.0, 49_001)
    below = np.interp(fine, SHIFTS, kept) < threshold
    expected = fine[below.argmax()] if below.any() else math.inf
    assert break_point(kept, SHIFTS, threshold) == pytest.approx(expected, abs=0.002)


def test_the_area_and_the_slope_of_a_line_over_log_shift_are_exact():
    clock = np.log2(SHIFTS)
    line = 0.9 - 0.1 * clock
    assert slope_per_doubling(line, SHIFTS) == pytest.approx(-0.1)
    assert area_over_log(line, SHIFTS) == pytest.approx((line[0] + line[-1]) / 2)
    assert area_over_log(np.full(5, 0.3), SHIFTS) == pytest.approx(0.3)
    assert slope_per_doubling(np.stack([line, line + 1, 0 * line]), SHIFTS) == pytest.approx([-0.1, -0.1, 0.0])


def test_area_and_slope_equal_numpy():
    scores = seeded(0).normal(size=5)
    clock = np.log(SHIFTS)
    loop = sum((scores[i] + scores[i + 1]) / 2 * (clock[i + 1] - clock[i]) for i in range(4)) / (clock[-1] - clock[0])
    assert area_over_log(scores, SHIFTS) == pytest.approx(loop)
    assert slope_per_doubling(scores, SHIFTS) == pytest.approx(np.polyfit(np.log2(SHIFTS), scores, 1)[0])


def test_a_score_that_rises_anywhere_is_flagged():
    assert falls_throughout(np.array([1.0, 0.5, 0.5, 0.1]))
    assert not falls_throughout(np.array([1.0, 0.5, 0.6, 0.1]))


def test_a_curve_of_constant_scores_has_closed_forms_and_no_width():
    curve = degradation_curve("width", levels(1.0, 2.0, 4.0), constant(0.8, 0.6, 0.2), "x1", seeded(), resamples=50)
    assert curve.score.value == pytest.approx([0.8, 0.6, 0.2])
    assert curve.retention.value == pytest.approx([1.0, 0.75, 0.25])
    assert curve.retention.low == pytest.approx(curve.retention.high)
    assert (curve.axis, curve.home, curve.down) == ("width", 0, None)
    up = curve.up
    assert up.levels == (0, 1, 2)
    assert up.s50 == Interval(*[pytest.approx(3.0)] * 3)
    assert up.area.value == pytest.approx((0.7 + 0.4) / 2)
    assert up.slope.value == pytest.approx(-0.375)
    assert up.falls_throughout
    assert [level.inside_support for level in curve.levels] == [True, True, False], "the marks stay with the levels"


def test_an_axis_that_goes_both_ways_has_two_branches():
    """In any order; each branch starts at home and its shifts grow: x0.1 is a shift of 10."""
    curve = degradation_curve("initial scale", levels(10.0, 0.1, 1.0, 0.01), constant(0.9, 0.5, 1.0, 0.1), "x1", seeded(), overall_mean, 50)
    assert curve.home == 2
    assert curve.up.levels == (2, 0)
    assert curve.down.levels == (2, 1, 3)
    assert curve.up.s50.value == math.inf
    assert curve.down.s50.value == pytest.approx(10.0)
    assert curve.up.slope.value == pytest.approx(-0.1 / math.log2(10))


def test_names_without_an_order_have_retention_only():
    kinds = [Level(name, None, None) for name in ("relu", "tanh", "gelu")]
    curve = degradation_curve("activation", kinds, constant(0.8, 0.4, 0.8), "relu", seeded(), resamples=50)
    assert curve.retention.value == pytest.approx([1.0, 0.5, 1.0])
    assert curve.up is curve.down is None


def noisy(seed, scores, meta_seeds=2):
    generator = seeded(seed)
    return [cube(score + 0.2 * generator.normal(size=(meta_seeds, 5, 4))) for score in scores]


def test_all_levels_share_one_bootstrap():
    """Every number is that of its own bootstrap over all levels with an equal generator, from the aggregates of the levels."""
    cubes = noisy(0, (1.0, 0.8, 0.3))
    curve = degradation_curve("depth", levels(1.0, 2.0, 4.0), cubes, "x1", seeded(5), resamples=300)

    def alone(function):
        def statistic(*values):
            return function(np.stack([interquartile_mean(one) for one in values], axis=-1))

        found = bootstrap(cubes, statistic, seeded(5), 300)
        return pytest.approx((found.value, found.low, found.high))

    shifts = np.array([1.0, 2.0, 4.0])
    for interval, function in (
        (curve.score.at(1), lambda g: g[..., 1]),
        (curve.retention.at(2), lambda g: g[..., 2] / g[..., 0]),
        (curve.up.area, lambda g: np.trapezoid(g, np.log(shifts), axis=-1) / np.log(4.0)),
        (curve.up.s50, lambda g: break_point(g / g[..., :1], shifts)),
        (curve.up.slope, lambda g: slope_per_doubling(g / g[..., :1], shifts)),
    ):
        assert (interval.value, interval.low, interval.high) == alone(function)
        assert interval.low <= interval.value <= interval.high
    home = curve.retention.at(0)
    assert (home.low, home.value, home.high) == (1.0, 1.0, 1.0), "home is all of itself in every resample"


def test_the_order_of_tasks_and_levels_changes_nothing():
    cubes = noisy(1, (1.0, 0.8, 0.3))
    curve = degradation_curve("depth", levels(1.0, 2.0, 4.0), cubes, "x1", seeded(), resamples=100)
    turned = [permuted(one, [4, 0, 2, 1, 3]) for one in cubes][::-1]
    other = degradation_curve("depth", levels(4.0, 2.0, 1.0), turned, "x1", seeded(), resamples=100)
    assert other.up.s50 == curve.up.s50
    assert other.up.slope == curve.up.slope
    assert (other.retention.low[::-1] == curve.retention.low).all()
    assert other.up.levels == (2, 1, 0)


@given(st.floats(0.1, 10.0))
def test_retention_s50_and_slope_do_not_know_the_unit_of_the_score(scale):
    cubes = noisy(2, (1.0, 0.7, 0.2))
    curves = [
        degradation_curve("depth", levels(1.0, 2.0, 4.0), [cube(c * one.values) for one in cubes], "x1", seeded(), resamples=40)
        for c in (1.0, scale)
    ]
    for name in ("s50", "slope"):
        one, other = (getattr(curve.up, name) for curve in curves)
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))
    assert curves[1].up.area.value == pytest.approx(scale * curves[0].up.area.value)


def test_a_learner_that_does_nothing_at_home_retains_nothing_that_could_be_named():
    curve = degradation_curve("width", levels(1.0, 2.0), constant(0.0, 0.0), "x1", seeded(), resamples=50)
    assert np.isnan(curve.retention.value).all()
    assert (curve.retention.at(1).low, curve.retention.at(1).high) == (-math.inf, math.inf)
    assert math.isnan(curve.up.s50.value)
    assert curve.score.value.tolist() == [0.0, 0.0]


def test_a_learner_that_hardly_works_at_home_has_intervals_without_end():
    """Home is 0 in part of the resamples (one run in twelve works): nothing bounds the retention."""
    home = np.zeros((1, 3, 4))
    home[0, 0, 0] = 1.0
    curve = degradation_curve("width", levels(1.0, 2.0), [cube(home), cube(home)], "x1", seeded(), overall_mean)
    assert curve.retention.at(1).value == 1.0
    assert (curve.retention.at(1).low, curve.retention.at(1).high) == (-math.inf, math.inf)


def test_a_break_point_that_some_resamples_never_reach_ends_at_infinity():
    generator = seeded(3)
    cubes = [cube(np.full((1, 6, 5), 1.0)), cube(0.5 + 0.3 * generator.normal(size=(1, 6, 5)))]
    s50 = degradation_curve("width", levels(1.0, 4.0), cubes, "x1", seeded(), overall_mean).up.s50
    assert 1.0 < s50.low < 4.0
    assert s50.high == math.inf


@pytest.mark.parametrize(
    ("marks", "cubes", "home", "message"),
    [
        (levels(1.0, 2.0), constant(1.0), "x1", "needs one cube a level"),
        (levels(1.0, 1.0), constant(1.0, 1.0), "x1", "unique names"),
        (levels(1.0, 2.0), constant(1.0, 1.0), "x3", r"has no level 'x3', only \['x1', 'x2'\]"),
        (levels(1.0, 2.0), constant(1.0, 1.0), "x2", "and 1 at home"),
        (levels(1.0, 0.0), constant(1.0, 1.0), "x1", "factors must be finite and > 0"),
        (levels(1.0, math.inf), constant(1.0, 1.0), "x1", "factors must be finite and > 0"),
        ([*levels(1.0), Level("b", None, None)], constant(1.0, 1.0), "x1", "must have a factor of their own, or none"),
        ([*levels(1.0), Level("b", 1.0, None)], constant(1.0, 1.0), "x1", "must have a factor of their own, or none"),
        (levels(1.0, 2.0), [random_cube(0, meta_seeds=2), random_cube(0)], "x1", "the same meta-seeds"),
        (levels(1.0, 2.0), [random_cube(0), random_cube(0, tasks=3)], "x1", "must share tasks"),
    ],
)
def test_levels_that_do_not_fit_together_are_refused(marks, cubes, home, message):
    with pytest.raises(ValueError, match=message):
        degradation_curve("width", marks, cubes, home, seeded())
