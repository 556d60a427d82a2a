"""Tunability: what a learner or baseline gives at its default, and after a number of tuning trials.

Legend: N recorded trials, K trials that one may spend.

Source: Schneider et al., 2019, "DeepOBS: a deep learning optimizer benchmark suite" (performance at several tuning budgets); Dodge et al.,
2019, "Show your work: improved reporting of experimental results" (expected best of K, equation 3). Differs: a trial is picked by its loss
on tuning seeds and scored on others, so that the best of many is not the luckiest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tunability", "expected_best", "tunability"]

TRIALS = (5, 15)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tunability:
    """Scores by tuning budget, each of the shape of one trial's outcome.

    Attributes:
        default: at the documented default, no trial spent.
        after: number of trials K -> expected score of the best of K.
    """

    default: Array
    after: dict[int, Array]


def expected_best(tuning_loss_N: Array, outcome: Array, trials: int) -> Array:
    """Return the expected outcome of the best of K trials, drawn with replacement from those recorded.

    It is the mean of infinitely many bootstrap draws, in closed form: a group of g equal losses is the best of K draws with probability
    (a / N)^K - (b / N)^K, where a trials are no better than it and b are worse. Equal losses share.

    Args:
        tuning_loss_N: by which a trial is picked; lower is better, `inf` for a failed trial.
        outcome: what the picked trial is worth [N, ...], on other seeds than those of `tuning_loss_N`. With the same array for
            both it is the expected minimum, `baselines.exact_best_of_k`.
        trials: K >= 1; 1 is the mean of all trials.

    Returns:
        Expected outcome [...].

    Raises:
        ValueError: no trials, lengths that differ, a loss that is NaN, or K < 1.
    """
    count = len(tuning_loss_N)
    if tuning_loss_N.ndim != 1 or count == 0 or len(outcome) != count or np.isnan(tuning_loss_N).any() or trials < 1:
        raise ValueError(
            f"expected_best takes N >= 1 losses that are not NaN, N outcomes and trials >= 1, "
            f"got {tuning_loss_N.shape}, {np.shape(outcome)} and {trials}"
        )
    ordered = np.sort(tuning_loss_N)
    no_better = count - np.searchsorted(ordered, tuning_loss_N, side="left")
    worse = count - np.searchsorted(ordered, tuning_loss_N, side="right")
    weights_N = ((no_better / count) ** trials - (worse / count) ** trials) / (no_better - worse)
    best: Array = (weights_N.reshape(-1, *(1,) * (np.ndim(outcome) - 1)) * outcome).sum(axis=0)
    return best


def tunability(default: Array, tuning_loss_N: Array, outcome: Array, trials: Sequence[int] = TRIALS) -> Tunability:
    """Return the score at the default and after each number of trials, for a learner that has something to tune.

    Args:
        default: outcome of the default configuration [...].
        tuning_loss_N, outcome: as in `expected_best`.
        trials: budgets K.

    Raises:
        ValueError: see `expected_best`.
    """
    return Tunability(np.asarray(default, dtype=np.float64), {k: expected_best(tuning_loss_N, outcome, k) for k in trials})
