"""Power curves: planted ones come back, rewards ignore the loss's units and order losses, and curves without an inverse are refused."""

import dataclasses
import math

import numpy as np
import pytest

from metaopt import inner, learners, tasks
from metaopt.baselines import power_curve
from metaopt.baselines.power_curve import (
    EXPONENT_AT_EDGE,
    FLAT,
    NON_FINITE,
    NON_MONOTONE,
    POOR_FIT,
    TAIL_IN_NOISE,
    PowerCurve,
    equivalent_budget,
    fit_power_curve,
    fit_power_curves,
    reward,
    reward_slope,
)
from metaopt.errors import ConfigError, TaskError

T = np.geomspace(1 / 64, 1, 14)
FACTORS = np.array([0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0])
EXACT = PowerCurve(end=0.3, slope=0.1, k=0.5, residual=0.0, low=3.0, span=4.0)  # L(t) = 3.4 + 0.8 t^-0.5
CONCAVE = PowerCurve(end=0.1, slope=0.5, k=-0.5, residual=0.0, low=3.0, span=4.0)  # L(t) = 7.4 - 4 t^0.5
ALL_K = [-3.0, -1.0, -0.3, -0.05, 0.0, 0.05, 0.35, 0.8, 1.5, 3.0]


def planted(k, t=T, a=0.3, b=0.7):
    return a + b * np.asarray(t) ** -k


def either(k, t=T, end=0.4, slope=0.3):
    """A curve of any exponent, by its loss and slope at the end."""
    t = np.asarray(t)
    return end + slope * (-np.log(t) if k == 0 else np.expm1(-k * np.log(t)) / k)


def noisy(k, seed, noise=0.01, a=0.3):
    """A curve with relative noise on what is left above its limit."""
    return a + 0.7 * T**-k * (1 + noise * np.random.default_rng(seed).normal(size=len(T)))


def errors(k, a=0.3, noise=0.01, seeds=40):
    """How far rewards of the true curve at the factors are from the truth [seeds whose curve is sound, factors]."""
    curves = fit_power_curves(T, np.stack([noisy(k, seed, noise, a) for seed in range(seeds)]))
    return np.stack([np.abs(reward(curve, planted(k, FACTORS, a=a)) - np.log(FACTORS)) for curve in curves if curve.degenerate is None])


@pytest.mark.parametrize("a", [0.0, 0.3, 20.0])
@pytest.mark.parametrize("k", [0.06, 0.1, 0.35, 0.8, 1.5, 3.0, 3.9])
def test_exact_curves_come_back(a, k):
    curve = fit_power_curve(T, planted(k, a=a))
    assert curve.k == pytest.approx(k, rel=1e-7)
    assert (curve.end - curve.slope / k) * curve.span + curve.low == pytest.approx(a, abs=1e-6)
    assert curve.slope / k * curve.span == pytest.approx(0.7, rel=1e-6)
    assert curve.residual < 1e-12
    assert reward(curve, planted(k, FACTORS, a=a)) == pytest.approx(np.log(FACTORS), abs=1e-6)


@pytest.mark.parametrize("k", [*ALL_K, 1e-9, -1e-9, -3.9])
def test_exact_curves_of_either_sign_come_back(k):
    curve = fit_power_curve(T, either(k))
    assert curve.degenerate is None
    assert curve.k == pytest.approx(k, rel=1e-6, abs=1e-8)
    assert (curve.end * curve.span + curve.low, curve.slope * curve.span) == pytest.approx((0.4, 0.3), rel=1e-7)
    assert curve.residual < 1e-12
    inside = FACTORS[FACTORS <= 1]
    assert reward(curve, either(k, inside)) == pytest.approx(np.log(inside), abs=1e-6)


@pytest.mark.parametrize("k", [-0.2, -0.5, -1.0, -2.0])
def test_speeds_come_back_from_noisy_concave_curves(k):
    """Noise of 1 % of the curve's range. What is left to the tangent past the end is another matter."""
    inside, truth = FACTORS[FACTORS <= 1], either(k)
    rows = [truth + 0.01 * np.ptp(truth) * np.random.default_rng(seed).normal(size=len(T)) for seed in range(40)]
    curves = fit_power_curves(T, np.stack(rows))
    assert all(curve.degenerate is None for curve in curves)
    off = np.abs(np.stack([reward(curve, either(k, inside)) - np.log(inside) for curve in curves]))
    assert (np.sqrt((off**2).mean(axis=0)) < 0.04 / inside ** max(0.0, -k)).all(), "flatter, hence noisier, towards the start"


@pytest.mark.parametrize("k", [-2.0, -1.0, -0.3])
def test_past_its_end_a_concave_curve_is_its_tangent(k):
    curve = fit_power_curve(T, either(k))
    times = np.array([1.1, 1.5, 1.99])
    assert reward(curve, 0.4 - 0.3 * np.log(times)) == pytest.approx(np.log(times), abs=1e-6)
    assert float(reward(curve, 0.4 - 0.3 * math.log(2.0) - 1e-6)) == pytest.approx(math.log(2), abs=1e-9)
    assert (reward(curve, either(k, times)) > np.log(times)).all(), "its own formula would pay less"


def test_a_concave_curve_ends_at_its_start():
    """Above what it has at t = 0 there is no budget."""
    assert float(reward(CONCAVE, 7.399)) == -3.0
    assert reward(CONCAVE, np.array([7.4, 7.5, 1e300])).tolist() == [-3.0] * 3
    assert float(reward(CONCAVE, 7.4 - 4 * 0.5)) == pytest.approx(math.log(0.25), abs=1e-12)


def test_fit_and_reward_pass_smoothly_through_a_logarithm():
    """Neighbours in k are neighbours in all numbers, from one side of 0 to the other."""
    asked = either(0.0, FACTORS)
    fits = [fit_power_curve(T, either(k)) for k in (-1e-4, -1e-7, 0.0, 1e-7, 1e-4)]
    for fit, k in zip(fits, (-1e-4, -1e-7, 0.0, 1e-7, 1e-4), strict=True):
        assert fit.k == pytest.approx(k, abs=1e-8)
        assert reward(fit, asked) == pytest.approx(reward(fits[2], asked), abs=20 * abs(k) + 1e-9)


def test_an_exponent_of_exactly_zero_is_a_logarithm():
    curve = dataclasses.replace(CONCAVE, k=0.0)
    times = np.array([0.06, 0.3, 1.0, 1.7])
    assert reward(curve, 3.4 - 2 * np.log(times)) == pytest.approx(np.log(times), abs=1e-12)
    assert reward_slope(curve, np.array([3.4, 5.0])) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(("k", "share"), [(0.35, 0.9), (0.5, 0.94), (0.8, 0.97), (1.2, 0.97), (2.0, 0.97), (3.0, 0.95), (3.8, 0.95)])
@pytest.mark.parametrize("a", [0.0, 20.0])
def test_speeds_come_back_from_noisy_curves(a, k, share):
    """With 1 % noise, log speeds are within 0.04 of the truth: typically at every factor, and nearly always."""
    off = errors(k, a)
    assert len(off) == 40, "none refused"
    assert (np.sqrt((off**2).mean(axis=0)) < 0.04).all()
    assert (off < 0.04).mean() > share
    assert np.median(off.max(axis=1)) < 0.04, "the worst of seven factors"


@pytest.mark.parametrize(("k", "sound", "typical"), [(0.06, 36, 0.13), (0.1, 40, 0.085), (0.2, 40, 0.045)])
def test_slow_curves_hold_less(k, sound, typical):
    """Below k = 0.35 the noise, which is in proportion to all that is left above a limit, is large beside the curve's fall."""
    off = errors(k)
    assert len(off) >= sound, "an exponent may pass through 0: only the noise of a few ends refuses them"
    assert 0.02 < np.sqrt((off**2).mean()) < typical


def test_errors_are_in_proportion_to_noise():
    assert errors(0.5, noise=0.001).mean() == pytest.approx(errors(0.5).mean() / 10, rel=0.2)


@pytest.mark.parametrize("k", [0.1, 0.5, 1.5, 3.0])
def test_the_scale_is_as_the_reward_promises(k):
    curve = fit_power_curve(T, planted(k))
    assert float(reward(curve, planted(k, 1.0))) == pytest.approx(0.0, abs=1e-9)
    assert float(reward(curve, planted(k, 0.5))) == pytest.approx(-math.log(2), abs=1e-9)
    for loss in (planted(k, 2.0), planted(k, 4.0), 0.3, -1.0, -1e300):
        assert float(reward(curve, loss)) == pytest.approx(math.log(2), abs=1e-9)
    assert float(reward(curve, planted(k, 1e-3))) == -3.0
    assert equivalent_budget(curve, planted(k, FACTORS)) == pytest.approx(FACTORS, rel=1e-8)


def test_budgets_stay_between_their_bounds():
    losses = np.array([-np.inf, -5.0, 3.4, 3.5, 4.2, 50.0, 1e300, np.inf, np.nan])
    budgets = equivalent_budget(EXACT, losses)
    assert budgets.tolist() == pytest.approx([math.exp(-3), 2, 2, 2, 1, math.exp(-3), math.exp(-3), math.exp(-3), math.exp(-3)])
    assert budgets.max() == 2.0, "not a rounding above"


def test_losses_that_are_not_finite_have_the_worst_reward_and_no_slope():
    losses = np.array([np.nan, np.inf, -np.inf])
    assert reward(EXACT, losses).tolist() == [-3.0] * 3
    assert reward_slope(EXACT, losses).tolist() == [0.0] * 3
    assert float(reward(EXACT, float("nan"))) == -3.0


@pytest.mark.parametrize("exponent", [-20, -3, 1, 20])
def test_a_power_of_two_changes_no_bit(exponent):
    losses, asked, scale = noisy(0.6, 1), planted(0.6, FACTORS), 2.0**exponent
    curve, scaled = fit_power_curve(T, losses), fit_power_curve(T, scale * losses)
    assert (reward(scaled, scale * asked) == reward(curve, asked)).all()
    assert dataclasses.replace(scaled, low=curve.low, span=curve.span) == curve


@pytest.mark.parametrize(("c", "e"), [(1.0, 1.0), (10.0, 0.0), (0.1, -7.0), (3e-5, 1e-3), (1e9, 1.0), (1.0, 1e3)])
@pytest.mark.parametrize("k", [-1.0, 0.2, 0.6, 2.0])
def test_rewards_do_not_see_affine_changes(k, c, e):
    losses, asked = (noisy(k, 2), planted(k, FACTORS)) if k > 0 else (either(k), either(k, FACTORS))
    before, after = (reward(fit_power_curve(T, f(losses)), f(asked)) for f in (lambda x: x, lambda x: c * x + e))
    digits_lost = max(1.0, abs(e) / c)  # an offset leaves the curve fewer digits
    assert after == pytest.approx(before, abs=1e-9 * max(1.0, digits_lost / 30))


@pytest.mark.parametrize("k", [-2.5, -0.5, 0.0, 0.1, 0.6, 2.5])
def test_a_lower_loss_never_has_a_lower_reward(k):
    losses = noisy(k, 3) if k > 0 else either(k)
    curve = fit_power_curve(T, losses)
    asked = np.sort(np.concatenate([np.linspace(-1, 2 * losses.max(), 5001), losses, either(k, FACTORS), [1e200]]))
    assert (np.diff(reward(curve, asked)) <= 0).all()
    for start in (1.0, either(k, 1.0), either(k, 0.7)):
        near = start * (1.0 + np.arange(-200, 200) * 2.0**-52)
        assert (np.diff(reward(curve, near)) <= 0).all()


def test_the_slope_is_the_derivative():
    asked = np.array([3.98, 4.0, 4.2, 4.6, 5.5, 6.9])
    step = 1e-6
    central = (reward(EXACT, asked - step) - reward(EXACT, asked + step)) / (2 * step)
    assert reward_slope(EXACT, asked) == pytest.approx(central, rel=1e-7)
    assert reward_slope(EXACT, np.array([3.0, 3.4, 3.9, 7.1, 100.0])).tolist() == [0.0] * 5, "clipped"
    assert float(reward_slope(EXACT, 4.2)) == pytest.approx(1 / (0.5 * 0.8))


def test_the_slope_of_a_concave_curve_is_the_derivative_on_both_sides_of_its_end():
    asked = np.array([6.4, 5.0, 4.0, 3.5, 3.3, 2.5, 2.1])
    step = 1e-6
    central = (reward(CONCAVE, asked - step) - reward(CONCAVE, asked + step)) / (2 * step)
    assert reward_slope(CONCAVE, asked) == pytest.approx(central, rel=1e-7)
    assert (reward_slope(CONCAVE, asked[-3:]) == 0.5).all(), "the tangent's"
    assert reward_slope(CONCAVE, np.array([1.9, 7.3, 9.0])).tolist() == [0.0] * 3, "clipped"


def test_a_slope_has_the_unit_of_one_over_the_loss():
    losses = noisy(0.6, 4)
    slope, scaled = (reward_slope(fit_power_curve(T, c * losses), c * planted(0.6, FACTORS[:-1])) for c in (1.0, 8.0))
    assert (slope == 8.0 * scaled).all()


def test_slopes_say_how_noisy_a_reward_is():
    rng = np.random.default_rng(0)
    losses = 4.4 + 0.002 * rng.normal(size=20_000)
    assert reward(EXACT, losses).std() == pytest.approx(0.002 * float(reward_slope(EXACT, 4.4)), rel=0.03)


def test_the_loss_at_initialisation_moves_no_point_of_the_fit():
    with_start = fit_power_curve(np.r_[0.0, T], np.r_[9.0, planted(0.6)])
    without = fit_power_curve(T, planted(0.6))
    assert with_start.span == pytest.approx(9.0 - 1.0)
    assert with_start.k == pytest.approx(without.k, rel=1e-9)
    assert reward(with_start, planted(0.6, FACTORS)) == pytest.approx(reward(without, planted(0.6, FACTORS)), abs=1e-9)


def test_the_loss_at_initialisation_tells_a_baseline_that_has_learned_nothing():
    assert fit_power_curve(T, planted(0.6)).degenerate is None
    start = planted(0.6)[-1] - 0.1
    assert fit_power_curve(np.r_[0.0, T], np.r_[start, planted(0.6)]).degenerate == NON_MONOTONE


DEGENERATE = {
    "inf": (NON_FINITE, np.r_[np.inf, planted(0.5)[1:]]),
    "nan at the end": (NON_FINITE, np.r_[planted(0.5)[:-1], np.nan]),
    "a range that overflows": (NON_FINITE, 1.7e308 * np.linspace(1, -1, 14)),
    "constant": (FLAT, np.full(14, 2.3)),
    "zero": (FLAT, np.zeros(14)),
    "rounding of float32": (FLAT, (2.3 + 1e-7 * planted(0.5)).astype(np.float32).astype(np.float64)),
    "rising": (NON_MONOTONE, planted(0.5)[::-1]),
    "down and up again": (NON_MONOTONE, np.abs(np.linspace(1, -1, 14))),
    "too late": (EXPONENT_AT_EDGE, 1 - T**5.0),
    "too steep": (EXPONENT_AT_EDGE, T**-5.0),
    "two steps": (POOR_FIT, np.where(T < 0.1, 1.0, np.where(T < 0.4, 0.45, 0.0)) + 0.1 * T**-0.5),
    "over before it began": (TAIL_IN_NOISE, T**-1.2 + 1.5 * np.cos(5 * np.arange(14))),
}


@pytest.mark.parametrize("name", list(DEGENERATE))
def test_curves_without_an_inverse_are_refused(name):
    reason, losses = DEGENERATE[name]
    curve = fit_power_curve(T, losses)
    assert curve.degenerate == reason
    for ask in (reward, equivalent_budget, reward_slope):
        with pytest.raises(TaskError, match="leave the task out and count it") as caught:
            ask(curve, 1.0)
        assert reason in str(caught.value)


def test_nothing_fitted_is_not_a_number():
    curve = fit_power_curve(T, np.full(14, 2.3))
    assert all(math.isnan(getattr(curve, name)) for name in ("end", "slope", "k", "residual", "low", "span"))


def test_many_curves_at_once_equal_one_by_one():
    rows = [noisy(k, seed) for k in (0.1, 0.4, 1.0, 3.0) for seed in range(5)] + [losses for _, losses in DEGENERATE.values()]
    together = fit_power_curves(T, np.stack(rows))
    alone = [fit_power_curve(T, row) for row in rows]
    assert [repr(curve) for curve in together] == [repr(curve) for curve in alone], "by text, for NaN is not NaN"
    asked = planted(0.4, FACTORS)
    assert reward(together[5], asked).tolist() == [float(reward(together[5], loss)) for loss in asked]
    assert reward(together[5], asked.reshape(7, 1)).shape == (7, 1)


def test_no_curves_are_no_fits():
    assert fit_power_curves(T, np.zeros((0, 14))) == []


def test_refining_finds_what_a_grid_a_thousand_times_finer_finds():
    losses = noisy(0.7, 9)
    curve = fit_power_curve(T, losses)
    y = (losses - losses.min()) / np.ptp(losses)
    root = np.sqrt(T ** (2 * curve.k))  # the weights of the second step are those of the first exponent, which is near

    def error(k):
        design = np.stack([np.ones_like(T), T**-k], axis=1) * root[:, None]
        return np.linalg.lstsq(design, y * root, rcond=None)[1][0]

    fine = np.geomspace(0.3, 1.5, 4001)
    assert curve.k == pytest.approx(fine[np.argmin([error(k) for k in fine])], rel=0.02)


@pytest.mark.parametrize(
    "fractions", [T[::-1], T[:-1], np.r_[T, 1.0], np.r_[-0.1, T], [0.0, 0.3, 0.6, 1.0], [[0.1, 1.0]], np.r_[np.nan, T]]
)
def test_bad_fractions(fractions):
    with pytest.raises(ConfigError, match="fractions must rise to 1"):
        fit_power_curve(fractions, np.ones(np.shape(fractions)[-1]))


@pytest.mark.parametrize("losses", [np.ones(13), np.ones((1, 14)), 1.0])
def test_bad_losses(losses):
    with pytest.raises(ConfigError, match="losses must be"):
        fit_power_curve(T, losses)


def real(family, template, rate, horizon):
    """A held-out curve of AdamW on a bundled task: budgets with the initialisation, losses, and losses at every step."""
    found = tasks.get(family)
    task = found.build(found.sample(template, 3, (horizon, horizon)))
    trace = inner.run(learners.get("adamw", lr=rate), {}, [task], [0], horizon, eval_every=1)
    losses = trace.eval_raw[:, 0].numpy().astype(np.float64)
    steps = np.unique([0, *np.round(T * horizon).astype(int)])
    return steps / horizon, losses[steps], losses


def test_a_real_curve_is_inverted():
    fractions, losses, every = real("digits_mlp", "16-tanh-b32", 1e-2, 128)
    curve = fit_power_curve(fractions, losses)
    assert curve.degenerate is None
    assert curve.residual < 0.03
    asked = np.array([16, 32, 64, 128])
    assert reward(curve, every[asked]) == pytest.approx(np.log(asked / 128), abs=0.15)


@pytest.mark.parametrize(("family", "template", "rate"), [("digits_mlp", "16-tanh-b32", 1e-3), ("quadratic", "6x6-minimum", 1e-2)])
def test_real_curves_that_fall_ever_faster_are_inverted(family, template, rate):
    """They have hardly begun: nearly all curves of short runs at the default rate."""
    fractions, losses, every = real(family, template, rate, 128)
    curve = fit_power_curve(fractions, losses)
    assert curve.degenerate is None
    assert curve.k < 0
    asked = np.array([32, 64, 128])
    assert reward(curve, every[asked]) == pytest.approx(np.log(asked / 128), abs=0.15)


def test_a_real_curve_that_is_done_early_is_refused():
    """It then bounces at a thousandth of where it began."""
    fractions, losses, _ = real("quadratic", "6x6-minimum", 1e-1, 128)
    assert fit_power_curve(fractions, losses).degenerate == TAIL_IN_NOISE


def test_the_module_needs_no_tasks():
    assert not {"torch", "tasks", "inner", "store"} & set(vars(power_curve))
