"""What a loss is worth in budgets of a baseline: its curve as a power law, inverted.

A curve L(t) = end + slope (t^-k - 1) / k is fitted to a baseline's losses, t being the fraction of the budget spent, slope > 0 its fall
by a unit of log t at the end of the budget. The reward of a loss is the logarithm of the fraction at which the baseline gets there: 0 is
as good as the baseline, log 2 (the ceiling) twice as fast or better, -log 2 what the baseline has after half the budget.

For k > 0 this is a + b t^-k with b = slope / k: a curve that has had its steepest part and goes to a limit. For k < 0 it falls ever faster
in log t, as curves of short runs do that have hardly begun; k = 0 between them is end + slope log(1 / t). The form is one smooth family
(Box and Cox's), so an exponent may be found on either side of 0 and small ones are no special case.

Past the end of the budget a curve with k < 0 is continued by its tangent in log t. Its own formula would fall ever faster, for ever, and
nothing that is better than the baseline would come near the ceiling; real curves turn: see `reward`.

All of it happens on losses that are min-max normalised over the curve, so a reward does not change when every loss becomes c L + e, c > 0:
to the last bit where the map is exact (c a power of two, e = 0), else to rounding.

The loss at initialisation belongs to t = 0, where t^-k is infinite, so it is no point of the fit. It counts in the normalisation and in
the test that the baseline has learned something. A place in the fit would be a guess that decides the exponent: on planted curves with
1 % noise and k from 0.35 to 3, half or a quarter of the first fraction gives rewards that are 0.03 to 0.2 off, and leaving it out
gives 0.01 to 0.02.

Legend: C curves, P points of a curve, K exponents of the grid.

Source: Almeida et al., 2021, arXiv 2106.00958, whose environment names a power curve, 14 points, extrapolation to twice the budget and a
clip at 3; the formulas are a reconstruction. Box, Cox, 1964, "An analysis of transformations", for the form. Differs: exponents of either
sign, the weights of the fit, and curves whose inverse means nothing are rejected.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaopt.errors import ConfigError, TaskError

__all__ = [
    "EXPONENT_AT_EDGE",
    "FLAT",
    "MOST_BUDGET",
    "NON_FINITE",
    "NON_MONOTONE",
    "POOR_FIT",
    "TAIL_IN_NOISE",
    "WORST",
    "PowerCurve",
    "equivalent_budget",
    "fit_power_curve",
    "fit_power_curves",
    "reward",
    "reward_slope",
]

WORST = -3.0  # reward of a failure; below a twentieth of the budget a baseline has hardly begun, and the clip bounds what one task can say
MOST_BUDGET = 2.0  # beyond twice the budget the curve is extrapolated too far to pay for

K_MAX = 4.0  # of either sign: faster is over before the first twentieth of the budget, or begins in its last quarter
GRID = 161  # 6 % apart, and 0.003 around 0: the error has one minimum between neighbours, which bisection finds
GRID_CORE = 0.05  # exponents below it are nearly a logarithm: there the grid is even, beyond it geometric
BISECTIONS = 50  # halvings of 12 % in k: down to rounding
LEAST_WEIGHT = 0.5  # weights are t or steeper: where the shape is not quite a power law's, the end of the curve is to be right
SERIES = 0.05  # arguments below which a difference of exponentials would lose digits that six terms of a series keep

MIN_SPAN = 1e-6  # of the largest loss: stored curves are float32, and below this they hold some dozen levels
MIN_FALL = 0.5  # of the curve's range, from its first loss to its last: a baseline that ends higher was best somewhere in the middle
EDGE = 1.001  # how near an exponent may come to the ends of the grid; at the ends the data wanted another one
MAX_RESIDUAL = 0.05  # of the curve's range: a power law is then not the shape of it
MAX_END_NOISE = 0.5 * math.log(MOST_BUDGET)  # reward that one residual is worth at the baseline's own end: half the way to the ceiling

NON_FINITE = "a loss is not finite"
FLAT = "the curve is flat"
NON_MONOTONE = "the curve does not fall to its end"
EXPONENT_AT_EDGE = f"the exponent is at the edge of -{K_MAX} to {K_MAX}"
POOR_FIT = "the residual is too large"
TAIL_IN_NOISE = "the end of the curve is flatter than its noise"

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PowerCurve:
    """A fitted curve, (L - low) / span = end + slope (t^-k - 1) / k; with k = 0 the fraction is log(1 / t).

    Attributes:
        end: its loss at the end of the budget, in units of the curve's range.
        slope: its fall by a unit of log t at the end of the budget, > 0, in the same units.
        k: exponent, of either sign.
        residual: root of the weighted mean squared error, in the same units.
        low: least loss of the curve.
        span: its largest loss less its least.
        degenerate: why the curve must not be inverted, one of the constants of this module; None for a sound one. Where nothing was
            fitted the numbers are NaN.
    """

    end: float
    slope: float
    k: float
    residual: float
    low: float
    span: float
    degenerate: str | None = None


def fit_power_curve(fractions: ArrayLike, losses: ArrayLike) -> PowerCurve:
    """Return the fit of one curve; as `fit_power_curves` with losses [P]."""
    return fit_power_curves(fractions, np.asarray(losses, np.float64)[None])[0]


def fit_power_curves(fractions: ArrayLike, losses_CP: ArrayLike) -> list[PowerCurve]:
    """Return the fits of many curves over the same fractions, each as if it were alone.

    Exponents are tried on a grid, with end and slope by weighted least squares, and the best is refined to rounding. It is done twice: with
    weights t^2, and then with t^2k of the first exponent, which is equal relative errors of what is left above the limit. Equal weights
    leave the end of a steep curve, where rewards are decided, to the noise of its beginning: at 1 % noise and k = 3 rewards are 1.0 off
    with equal weights, 0.24 with t^2 and 0.01 after the second step. Below k = 1/2 the second weights are t: real curves are no power laws,
    and against equal weights for k < 0 this takes a sixth off what the fits of forty short runs are wrong by past their end.

    Args:
        fractions: of the budget, rising, the last is 1 [P]. The first may be 0, which stands for the loss at initialisation. At least
            four above 0, evenly spaced in log t for the weights to mean what is said above.
        losses_CP: losses there; non-finite ones make a curve degenerate.

    Raises:
        ConfigError: fractions or shapes other than these.
    """
    t_P, losses = np.asarray(fractions, np.float64), np.asarray(losses_CP, np.float64)
    if t_P.ndim != 1 or not (np.diff(t_P) > 0).all() or (t_P > 0).sum() < 4 or t_P[0] < 0 or t_P[-1] != 1:
        raise ConfigError(f"fractions must rise to 1, with four or more above 0 and none below, got {t_P.tolist()}")
    if losses.ndim != 2 or losses.shape[1] != len(t_P):
        raise ConfigError(f"losses must be [curves, {len(t_P)}], a loss for each fraction, got shape {list(losses.shape)}")
    with np.errstate(over="ignore", invalid="ignore"):
        bad: Mask = ~np.isfinite(losses.max(axis=1) - losses.min(axis=1))  # also a range that overflows
    losses = np.where(bad[:, None], 0.0, losses)
    low = losses.min(axis=1)
    span = losses.max(axis=1) - low
    flat = span <= MIN_SPAN * np.abs(losses).max(axis=1)
    scaled = (losses - low[:, None]) / np.where(flat, 1.0, span)[:, None]
    fitted = t_P > 0
    log_t, y = np.log(t_P[fitted]), np.ascontiguousarray(scaled[:, fitted])  # the order of a sum must not depend on C
    k, _ = _best_exponent(log_t, y, np.tile(np.exp(2.0 * log_t), (len(y), 1)))
    weights = np.exp(2.0 * np.maximum(k, LEAST_WEIGHT)[:, None] * log_t)
    k, found = _best_exponent(log_t, y, weights)
    weights = np.exp(2.0 * np.maximum(k, LEAST_WEIGHT)[:, None] * log_t)
    end, slope, residual = _solve(k, log_t, y, weights)[:3]
    reasons = [
        (bad, NON_FINITE),
        (flat, FLAT),
        ((scaled[:, 0] - scaled[:, -1] < MIN_FALL) | ~found | (slope <= 0), NON_MONOTONE),
        (np.abs(k) > K_MAX / EDGE, EXPONENT_AT_EDGE),
        (residual > MAX_RESIDUAL, POOR_FIT),
        (residual > MAX_END_NOISE * slope, TAIL_IN_NOISE),
    ]
    curves = []
    for i in range(len(losses)):
        reason = next((reason for holds, reason in reasons if holds[i]), None)
        numbers = (math.nan if flat[i] else float(value[i]) for value in (end, slope, k, residual, low, span))
        curves.append(PowerCurve(*numbers, degenerate=reason))  # type: ignore[misc, arg-type]
    return curves


def equivalent_budget(curve: PowerCurve, loss: ArrayLike) -> Array:
    """Return the fraction of the budget at which the baseline reaches losses [...]: from e^-3 to 2, and e^-3 if not finite.

    Raises:
        TaskError: the curve is degenerate.
    """
    budget: Array = np.minimum(np.exp(reward(curve, loss)), MOST_BUDGET)
    return budget


def reward(curve: PowerCurve, loss: ArrayLike) -> Array:
    """Return log t_eq of losses [...]: from -3, also for what is not finite, to log 2; a lower loss never has a lower reward.

    A loss below the end of a curve with k < 0 is read off the tangent in log t there.

    Raises:
        TaskError: the curve is degenerate.
    """
    clipped: Array = np.clip(_log_budget(curve, loss), WORST, math.log(MOST_BUDGET))
    return clipped


def reward_slope(curve: PowerCurve, loss: ArrayLike) -> Array:
    """Return |d reward / d loss| at losses [...], by the loss's own unit; 0 where the reward is clipped.

    For k > 0 it is 1 / (k (L - a)). Times the standard deviation of a loss it is that of its reward, large where the curve is flat.

    Raises:
        TaskError: the curve is degenerate.
    """
    log_t = _log_budget(curve, loss)
    inside = (log_t > WORST) & (log_t < math.log(MOST_BUDGET))
    steepness = np.exp(
        -curve.k * np.where(inside & ((curve.k >= 0) | (log_t < 0)), log_t, 0.0)
    )  # of the curve in log t, by that at the end
    slope: Array = np.where(inside, 1.0 / (curve.slope * curve.span * steepness), 0.0)
    return slope


def _log_budget(curve: PowerCurve, loss: ArrayLike) -> Array:
    """Return log t_eq before its clips; inf at and below a limit, -inf at and above a finite start, and for a loss that is not finite."""
    if curve.degenerate is not None:
        raise TaskError(f"a reward needs a baseline's curve that can be inverted: {curve.degenerate}; leave the task out and count it")
    loss, k = np.asarray(loss, np.float64), curve.k
    with np.errstate(over="ignore"):
        above = ((np.where(np.isfinite(loss), loss, curve.low) - curve.low) / curve.span - curve.end) / curve.slope
        there = 1.0 + k * above > 0  # between the curve's start and its limit, so far as it has them
    power = -np.log1p(k * np.where(there, above, 0.0)) / k if k != 0 else -above
    log_t = np.where(there, power, math.copysign(math.inf, k))
    if k < 0:
        log_t = np.where(above < 0, -above, log_t)
    return np.where(np.isfinite(loss), log_t, -np.inf)


def _best_exponent(log_t: Array, y_CP: Array, weights_CP: Array) -> tuple[Array, Mask]:
    """Return the exponent of least error of each curve [C], and whether any exponent has slope > 0 [C]."""
    reach = math.asinh(K_MAX / GRID_CORE)
    grid = GRID_CORE * np.sinh(np.linspace(-reach, reach, GRID))
    _, slope, residual, _ = _solve(grid, log_t, y_CP[:, None], weights_CP[:, None])
    error = np.where(slope > 0, residual, np.inf)
    best = error.argmin(axis=1)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, GRID - 1)]
    for _ in range(BISECTIONS):  # on the derivative: the error itself is level to half the digits of k, and rounding would choose
        middle = 0.5 * (low + high)
        falling = _solve(middle, log_t, y_CP, weights_CP)[3] < 0
        low, high = np.where(falling, middle, low), np.where(falling, high, middle)
    found: Mask = np.any(np.isfinite(error), axis=1)
    return 0.5 * (low + high), found


def _solve(k: Array, log_t: Array, y: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Return end, slope, the residual and the sign-true derivative of the squared error by k, for exponents [...] and losses [..., P]."""
    x, x_by_k = _power(k[..., None], log_t)
    w = weights / weights.sum(axis=-1, keepdims=True)
    x_mean, y_mean = (w * x).sum(axis=-1), (w * y).sum(axis=-1)
    x_off = x - x_mean[..., None]
    slope = (w * x_off * (y - y_mean[..., None])).sum(axis=-1) / (w * x_off**2).sum(axis=-1)
    end = y_mean - slope * x_mean
    error = y - end[..., None] - slope[..., None] * x
    by_k = -2.0 * slope * (w * error * x_by_k).sum(axis=-1)  # end and slope are at their best, so theirs do not add
    return end, slope, np.sqrt((w * error**2).sum(axis=-1)), by_k


def _power(k: Array, log_t: Array) -> tuple[Array, Array]:
    """Return (t^-k - 1) / k and its derivative by k, smooth at k = 0."""
    age = -log_t
    z = k * age
    small = np.abs(z) < SERIES
    safe = np.where(small, 1.0, z)
    ratio = np.where(small, 1 + z * (1 / 2 + z * (1 / 6 + z * (1 / 24 + z * (1 / 120 + z * (1 / 720 + z / 5040))))), np.expm1(safe) / safe)
    by_z = np.where(
        small, 1 / 2 + z * (1 / 3 + z * (1 / 8 + z * (1 / 30 + z * (1 / 144 + z * (1 / 840 + z / 5760))))), (np.exp(safe) - ratio) / safe
    )
    return age * ratio, age**2 * by_z
