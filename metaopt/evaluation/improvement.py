"""Is one learner better than another? Probability of improvement, paired difference, permutation test, correction for many tests.

Legend: M meta-seeds, J tasks, K inner seeds, U units that are relabelled, P relabellings. Higher scores are better; negate losses.

Source: Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical precipice" (probability of improvement); Fisher,
1935, "The design of experiments" (permutation test); Holm, 1979, "A simple sequentially rejective multiple test procedure".
"""

import itertools
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from metaopt.evaluation.named_axes import ScoreCube
from metaopt.evaluation.resampling import CONFIDENCE, RESAMPLES, Interval, Statistic, bootstrap
from metaopt.evaluation.statistics import interquartile_mean

__all__ = ["holm", "paired_difference", "permutation_p_value", "probability_of_improvement"]

# All relabellings of 10 against 10 units are 184,756; more than so many are sampled instead.
EXACT_RELABELLINGS = 200_000
SAMPLED_RELABELLINGS = 50_000
_ROUNDING = 1e-12  # equal statistics may differ by so much when their terms are added in another order

Array = NDArray[np.float64]


def probability_of_improvement(candidate: Array, reference: Array) -> Array:
    """Return the mean over tasks of P(candidate > reference) + P(equal) / 2, over all pairs of runs of a task.

    Args:
        candidate: scores [..., M, J, K], higher is better (negate losses).
        reference: scores [..., M', J, K'] of the same tasks.

    Returns:
        Probability [...], in [0, 1]; 0.5 for identical arrays.
    """
    left = np.moveaxis(candidate, -2, -3).reshape(*candidate.shape[:-3], candidate.shape[-2], -1, 1)
    right = np.moveaxis(reference, -2, -3).reshape(*reference.shape[:-3], reference.shape[-2], 1, -1)
    pairs = left.shape[-3] * left.shape[-2] * right.shape[-1]
    better, worse = ((one > other).reshape(*left.shape[:-3], pairs).sum(axis=-1) for one, other in ((left, right), (right, left)))
    wins: Array = 0.5 + 0.5 * (better - worse) / pairs
    return wins


def paired_difference(
    candidate: ScoreCube,
    reference: ScoreCube,
    generator: np.random.Generator,
    statistic: Statistic = interquartile_mean,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    *,
    new_tasks: bool = False,
) -> Interval:
    """Return statistic(candidate) - statistic(reference) with its interval, from the same draws of runs for both.

    Two intervals that overlap say little about a difference; this one does. See `bootstrap` for arguments and errors.
    """

    def difference(left: Array, right: Array) -> Array:
        return statistic(left) - statistic(right)

    return bootstrap([candidate, reference], difference, generator, resamples, confidence, new_tasks=new_tasks)


def permutation_p_value(candidate: ScoreCube, reference: ScoreCube, generator: np.random.Generator, *, paired: bool = False) -> float:
    """Return the two-sided permutation p-value of "the probability of improvement is 0.5".

    The units that are relabelled are meta-seeds, with all their tasks and inner seeds. If a side has only one, they are inner seeds (with
    their tasks and meta-seeds), and the claim is about these meta-trainings, not about new ones.

    Args:
        candidate, reference: cubes of the same tasks.
        generator: consumed only if there are more than 200,000 relabellings, of which 50,000 are then drawn.
        paired: swap only within pairs of units of the same seed. Right for inner seeds, which both sides share, but 5 pairs cannot give
            less than 0.0625; without it, units that share a seed make the test conservative.

    Returns:
        p in (0, 1]: the share of relabellings whose probability of improvement is at least as far from 0.5. With n units a side the
        smallest is 0.100, 0.029, 0.0079 for n = 3, 4, 5 (unpaired).

    Raises:
        ValueError: the tasks differ, or the units of a paired test do.
    """
    if candidate.tasks != reference.tasks:
        raise ValueError("candidate and reference must share their tasks")
    by_meta_seed = min(len(candidate.meta_seeds), len(reference.meta_seeds)) > 1
    # Units lead: [units, runs of a unit, tasks].
    order = (0, 2, 1) if by_meta_seed else (2, 0, 1)
    left, right = candidate.values.transpose(order), reference.values.transpose(order)
    labels = [(cube.meta_seeds if by_meta_seed else cube.seeds) for cube in (candidate, reference)]
    if paired and labels[0] != labels[1]:
        raise ValueError(f"a paired test needs the same units on both sides, got {labels[0]} and {labels[1]}")
    wins = _wins(left, right)
    chosen_PU = _swaps(len(left), generator) if paired else _splits(len(left), len(right), generator)
    # The first relabelling is the observed one. Mean win of the chosen units over the others:
    odds_P = np.einsum("pu,pu->p", chosen_PU @ wins, 1.0 - chosen_PU) / (len(left) * len(right))
    distance_P = np.abs(odds_P - 0.5)
    return float(np.mean(distance_P >= distance_P[0] - _ROUNDING))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for testing all of these planned contrasts, by name; below 0.05 they are significant as a family at 5 %.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    bad = {name: p for name, p in p_values.items() if not 0.0 <= p <= 1.0}
    if bad:
        raise ValueError(f"p-values must be in [0, 1], got {bad}")
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _wins(left: Array, right: Array) -> Array:
    """Return the mean over tasks of P(a > b) + P(a = b) / 2 for all units a, b of both sides together: [U, U]."""
    units = [*left, *right]  # arrays [runs, J]
    wins = np.empty((len(units), len(units)))
    for a, one in enumerate(units):
        for b, other in enumerate(units):
            wins[a, b] = 0.5 + 0.5 * np.sign(one[:, None] - other[None]).mean()
    return wins


def _splits(left: int, right: int, generator: np.random.Generator) -> Array:
    """Return which units the candidate gets in every split of the pool [P, U]; the first split is the observed one."""
    units = left + right
    if math.comb(units, left) <= EXACT_RELABELLINGS:
        chosen = np.array(list(itertools.combinations(range(units), left)))
    else:
        chosen = generator.permuted(np.tile(np.arange(units), (SAMPLED_RELABELLINGS, 1)), axis=1)[:, :left]
        chosen[0] = np.arange(left)
    chosen_PU = np.zeros((len(chosen), units))
    np.put_along_axis(chosen_PU, chosen, 1.0, axis=1)
    return chosen_PU


def _swaps(pairs: int, generator: np.random.Generator) -> Array:
    """Return which units the candidate gets in every swapping of pairs [P, 2 pairs]; the first is the observed one."""
    if 2**pairs <= EXACT_RELABELLINGS:
        swapped = np.array(list(itertools.product((0.0, 1.0), repeat=pairs)))
    else:
        swapped = generator.integers(2, size=(SAMPLED_RELABELLINGS, pairs)).astype(np.float64)
        swapped[0] = 0.0
    return np.concatenate([1.0 - swapped, swapped], axis=1)
