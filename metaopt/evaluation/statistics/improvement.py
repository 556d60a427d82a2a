"""Is one learner better than another? Probability of improvement, paired difference, permutation test, correction for many tests.

Legend: M meta-seeds, J tasks, K inner seeds, U units that are relabelled, P relabellings. Higher scores are better; negate losses.

Source: Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical precipice" (probability of improvement); Fisher,
1935, "The design of experiments" (permutation test); Holm, 1979, "A simple sequentially rejective multiple test procedure".
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metaopt.evaluation.statistics.aggregates import interquartile_mean
from metaopt.evaluation.statistics.named_axes import ScoreCube
from metaopt.evaluation.statistics.resampling import CONFIDENCE, RESAMPLES, Interval, Statistic, bootstrap

__all__ = ["holm", "paired_difference", "permutation_p_value", "probability_of_improvement"]

# All relabellings of 10 against 10 units are 184,756; more than so many are sampled instead.
EXACT_RELABELLINGS = 200_000
SAMPLED_RELABELLINGS = 10_000
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
    shared_runs: bool = True,
) -> Interval:
    """Return statistic(candidate) - statistic(reference) with its interval, from the same draws of runs for both.

    Two intervals that overlap say little about a difference; this one does. See `bootstrap` for arguments and errors.
    """

    def difference(left: Array, right: Array) -> Array:
        return statistic(left) - statistic(right)

    return bootstrap([candidate, reference], difference, generator, resamples, confidence, new_tasks=new_tasks, shared_runs=shared_runs)


def permutation_p_value(candidate: ScoreCube, reference: ScoreCube, generator: np.random.Generator) -> float:
    """Return the two-sided permutation p-value of "the probability of improvement is 0.5".

    What is relabelled are meta-seeds, each with all of its tasks and inner seeds. If a side has only one, runs are relabelled inside each
    task, independently of other tasks: inner seeds of two tasks have nothing in common. The claim is then about these meta-trainings and
    these tasks, not about new ones.

    Args:
        candidate, reference: cubes of the same tasks.
        generator: consumed only if there are more than 200,000 relabellings, of which 10,000 are then drawn.

    Returns:
        p in (0, 1]: the share of relabellings whose probability of improvement is at least as far from 0.5. With n meta-seeds a side, or
        n runs of one task, the smallest is 0.100, 0.029, 0.0079 for n = 3, 4, 5; where relabellings are drawn it is 0.0001.

    Raises:
        ValueError: the tasks differ.
    """
    if candidate.tasks != reference.tasks:
        raise ValueError("candidate and reference must share their tasks")
    if min(len(candidate.meta_seeds), len(reference.meta_seeds)) > 1:
        strata = [(candidate.values.transpose(0, 2, 1), reference.values.transpose(0, 2, 1))]
    else:
        strata = [(candidate.values[:, j].reshape(-1, 1, 1), reference.values[:, j].reshape(-1, 1, 1)) for j in range(len(candidate.tasks))]
    distance_P = np.abs(_relabelled_odds(strata, generator) - 0.5)  # the first relabelling is the observed one
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


def _relabelled_odds(strata: Sequence[tuple[Array, Array]], generator: np.random.Generator) -> Array:
    """Return the mean over strata of the probability of improvement under relabellings inside each of them [P], the observed one first.

    Args:
        strata: units of either side [units, runs of a unit, tasks].
        generator: see `permutation_p_value`.
    """
    sizes = [(len(left), len(right)) for left, right in strata]
    exact = math.prod(math.comb(left + right, left) for left, right in sizes) <= EXACT_RELABELLINGS
    total = np.zeros(1 if exact else SAMPLED_RELABELLINGS)
    for (left, right), size in zip(strata, sizes, strict=True):
        wins, chosen_PU = _wins(left, right), _all_splits(*size) if exact else _drawn_splits(*size, generator)
        # Mean win of the chosen units over the others.
        odds_P = np.einsum("pu,pu->p", chosen_PU @ wins, 1.0 - chosen_PU) / math.prod(size)
        total = np.add.outer(total, odds_P).ravel() if exact else total + odds_P
    return total / len(strata)


def _wins(left: Array, right: Array) -> Array:
    """Return the mean over tasks of P(a > b) + P(a = b) / 2 for all units a, b of both sides together: [U, U]."""
    units = [*left, *right]  # arrays [runs, J]
    wins = np.empty((len(units), len(units)))
    for a, one in enumerate(units):
        for b, other in enumerate(units):
            wins[a, b] = 0.5 + 0.5 * np.sign(one[:, None] - other[None]).mean()
    return wins


def _all_splits(left: int, right: int) -> Array:
    """Return which units the candidate gets in every split of the pool [P, U]; the first split is the observed one."""
    return _marked(np.array(list(itertools.combinations(range(left + right), left))), left + right)


def _drawn_splits(left: int, right: int, generator: np.random.Generator) -> Array:
    """Return the same for splits that are drawn, after the observed one."""
    chosen = generator.permuted(np.tile(np.arange(left + right), (SAMPLED_RELABELLINGS, 1)), axis=1)[:, :left]
    chosen[0] = np.arange(left)
    return _marked(chosen, left + right)


def _marked(chosen: NDArray[np.int64], units: int) -> Array:
    chosen_PU = np.zeros((len(chosen), units))
    np.put_along_axis(chosen_PU, chosen, 1.0, axis=1)
    return chosen_PU
