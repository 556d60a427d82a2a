"""Degradation curves: how a learner's score falls as one axis leaves the level that it was trained at.

Levels are multiples s of the training level, or names without an order (activation, data set), for which only the retention is defined. An
axis may go both ways (initial scale x 0.1 and x 10): each way is a branch whose s grows from 1.

Legend: L levels, M meta-seeds, J tasks, K inner seeds.

Source: the idea of one number a shift follows Hendrycks and Dietterich, 2019, "Benchmarking neural network robustness to common corruptions
and perturbations". Differs: relative to the learner's own score at home, with one bootstrap for the whole curve.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaopt.evaluation.statistics.aggregates import interquartile_mean
from metaopt.evaluation.statistics.named_axes import ScoreCube
from metaopt.evaluation.statistics.resampling import CONFIDENCE, RESAMPLES, Band, Interval, Statistic, bootstrap_band

__all__ = [
    "Branch",
    "DegradationCurve",
    "Level",
    "area_over_log",
    "break_point",
    "degradation_curve",
    "falls_throughout",
    "retention",
    "slope_per_doubling",
]

BREAK_RETENTION = 0.5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """One level of an axis.

    Attributes:
        name: as shown, e.g. "x4" or "relu".
        factor: multiple of the training level, > 0 and 1 at home; None on an axis without an order.
        inside_support: whether the learner was meta-trained there, by its card; None if unknown (a baseline, a card that does not say).
    """

    name: str
    factor: float | None
    inside_support: bool | None


@dataclass(frozen=True)
class Branch:
    """What happens on one side of home, where the shift s grows from 1.

    Attributes:
        levels: indices into the levels of the curve, from home outwards.
        area: mean score over log s.
        s50: shift at which retention falls below one half; `inf` if it does not, NaN where the score at home is not positive.
        slope: of the retention, per doubling of s.
        falls_throughout: the score never rises on the way out. If it does, s50 says less than the curve.
    """

    levels: tuple[int, ...]
    area: Interval
    s50: Interval
    slope: Interval
    falls_throughout: bool


@dataclass(frozen=True)
class DegradationCurve:
    """A learner on one axis.

    Attributes:
        axis: its name.
        levels: in the order given, with their marks of the training support.
        home: index of the training level.
        score: aggregate score of each level [L].
        retention: score over the score at home [L].
        up, down: towards larger and smaller factors; None where there is no level.
    """

    axis: str
    levels: tuple[Level, ...]
    home: int
    score: Band
    retention: Band
    up: Branch | None
    down: Branch | None


def degradation_curve(
    axis: str,
    levels: Sequence[Level],
    cubes: Sequence[ScoreCube],
    home: str,
    generator: np.random.Generator,
    statistic: Statistic = interquartile_mean,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> DegradationCurve:
    """Return a learner's curve along one axis, with pointwise intervals from one bootstrap that all levels share.

    Args:
        axis: name of the axis.
        levels: of the axis, in any order; all have a factor or none has.
        cubes: one a level, scores [M, J, K] of the same base tasks (by name), seeds and meta-seeds; higher is better, 0 is a learner that
            does nothing (`scores.final_loss_score`).
        home: name of the training level; its factor must be 1.
        generator, resamples, confidence: see `resampling.bootstrap`.
        statistic: an aggregate of one cube.

    Raises:
        ValueError: levels that do not fit together, no level of that name, or cubes that differ in what they share.
    """
    at_home = _check_levels(axis, levels, cubes, home)
    factors = [level.factor for level in levels]
    branches = {name: _branch(factors, sign) for name, sign in (("up", 1.0), ("down", -1.0))}

    def everything(*values: Array) -> Array:
        scores = np.stack([statistic(one) for one in values], axis=-1)
        kept = retention(scores, at_home)
        numbers = [scores, kept]
        for indices, shifts in branches.values():
            if indices:
                one, relative = scores[..., indices], kept[..., indices]
                found = (area_over_log(one, shifts), break_point(relative, shifts), slope_per_doubling(relative, shifts))
                numbers.append(np.stack(found, axis=-1))
        return np.concatenate(numbers, axis=-1)

    band = bootstrap_band(cubes, everything, generator, resamples, confidence)
    count, start = len(levels), 2 * len(levels)
    found: dict[str, Branch | None] = {"up": None, "down": None}
    for name, (indices, _) in branches.items():
        if indices:
            falls = falls_throughout(band.value[list(indices)])
            found[name] = Branch(indices, band.at(start), band.at(start + 1), band.at(start + 2), falls)
            start += 3
    score = Band(band.value[:count], band.low[:count], band.high[:count])
    kept = Band(*(one[count : 2 * count] for one in (band.value, band.low, band.high)))
    return DegradationCurve(axis, tuple(levels), at_home, score, kept, found["up"], found["down"])


def retention(scores: Array, home: int) -> Array:
    """Return g(s) / g(1): scores [..., L] -> [..., L]; NaN where the score at home is not positive, for then there is nothing to retain."""
    base = scores[..., home, None]
    kept: Array = np.where(base > 0.0, scores / np.where(base > 0.0, base, 1.0), np.nan)
    return kept


def area_over_log(scores: Array, shifts_L: Array) -> Array:
    """Return the area under g over log s, divided by the range of log s: scores [..., L] -> [...], a mean score over all shifts alike.

    Args:
        scores: along one branch.
        shifts_L: increasing, >= 1, at least two.
    """
    clock = np.log(shifts_L)
    area: Array = np.trapezoid(scores, clock, axis=-1) / (clock[-1] - clock[0])
    return area


def break_point(kept: Array, shifts_L: Array, threshold: float = BREAK_RETENTION) -> Array:
    """Return s50, the smallest shift at which retention falls below the threshold: retention [..., L] -> [...].

    Linear in s between two levels; `inf` if no level is below, NaN where the retention is.

    Args:
        kept: retention along one branch; the first is at home.
        shifts_L: increasing from 1.
        threshold: in (0, 1).
    """
    below = kept < threshold
    after = np.maximum(below.argmax(axis=-1), 1)[..., None]
    high, low = np.take_along_axis(kept, after - 1, axis=-1)[..., 0], np.take_along_axis(kept, after, axis=-1)[..., 0]
    left, right = shifts_L[after[..., 0] - 1], shifts_L[after[..., 0]]
    broken = below.any(axis=-1)
    share = np.divide(high - threshold, high - low, out=np.zeros(broken.shape), where=broken)
    crossing = np.where(broken, left + share * (right - left), np.inf)
    point: Array = np.where(np.isnan(kept).any(axis=-1), np.nan, crossing)
    return point


def slope_per_doubling(kept: Array, shifts_L: Array) -> Array:
    """Return the least-squares slope of the retention over log2 s: [..., L] -> [...]; -0.1 loses a tenth of the home score a doubling."""
    clock = np.log2(shifts_L)
    centred = clock - clock.mean()
    slope: Array = (kept * centred).sum(axis=-1) / (centred**2).sum()
    return slope


def falls_throughout(scores_L: Array) -> bool:
    """Return whether the score never rises on the way out from home."""
    return bool((np.diff(scores_L) <= 0.0).all())


def _branch(factors: Sequence[float | None], sign: float) -> tuple[tuple[int, ...], Array]:
    """Return the levels on one side of home, from home outwards, and their shifts; none if there is only home."""
    shifts = {i: factor**sign for i, factor in enumerate(factors) if factor is not None and factor**sign >= 1.0}
    indices = tuple(sorted(shifts, key=shifts.__getitem__))
    return (indices, np.array([shifts[i] for i in indices])) if len(indices) > 1 else ((), np.empty(0))


def _check_levels(axis: str, levels: Sequence[Level], cubes: Sequence[ScoreCube], home: str) -> int:
    """Return the index of the home level."""
    names = [level.name for level in levels]
    factors = [level.factor for level in levels if level.factor is not None]
    if len(levels) != len(cubes) or len(set(names)) < len(names):
        raise ValueError(f"axis {axis!r} needs one cube a level and unique names, got {len(cubes)} cubes for {names}")
    if home not in names:
        raise ValueError(f"axis {axis!r} has no level {home!r}, only {names}")
    if factors and (len(factors) < len(levels) or len(set(factors)) < len(factors)):
        raise ValueError(f"axis {axis!r}: all levels must have a factor of their own, or none, got {[level.factor for level in levels]}")
    if not all(0.0 < factor < math.inf for factor in factors) or levels[names.index(home)].factor not in (1.0, None):
        raise ValueError(f"axis {axis!r}: factors must be finite and > 0, and 1 at home ({home!r}), got {factors}")
    if len({cube.meta_seeds for cube in cubes}) > 1:
        raise ValueError(f"axis {axis!r}: every level must hold the same meta-seeds")
    return names.index(home)
