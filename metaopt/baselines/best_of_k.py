"""What the best of K trials is worth, from the record of more than K.

Legend: N recorded trials, K trials that one may spend.

Source: Dodge et al., 2019, "Show your work: improved reporting of experimental results", equation (3). Differs: a trial may be picked by
one loss and be worth another, so that the best of many is not the luckiest.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["expected_best", "expected_best_of_k"]

Array = NDArray[np.float64]


def expected_best(tuning_loss_N: Array, outcome: Array, trials: int) -> Array:
    """Return the expected outcome of the best of K trials, drawn with replacement from those recorded.

    It is the mean of infinitely many bootstrap draws, in closed form: a group of g equal losses is the best of K draws with probability
    (a / N)^K - (b / N)^K, where a trials are no better than it and b are worse. Equal losses share.

    Args:
        tuning_loss_N: by which a trial is picked; lower is better, `inf` for a failed trial.
        outcome: what the picked trial is worth [N, ...], on other seeds than those of `tuning_loss_N`. With the same array for both it
            is the expected minimum.
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
    used = weights_N > 0.0  # it may underflow, and 0 times an infinite outcome is no number
    best: Array = (weights_N[used].reshape(-1, *(1,) * (np.ndim(outcome) - 1)) * outcome[used]).sum(axis=0)
    return best


def expected_best_of_k(finals_N: Array, k: int, draws: int, seed: int) -> float:
    """Return the mean, over bootstrap draws of k trials with replacement, of the lowest loss; `expected_best` is its limit.

    Args:
        finals_N: final loss of each trial, `inf` or the task's cap for a failed one.
        k: trials that one may spend, >= 1.
        draws: of the bootstrap, >= 1.
        seed: of the draws; the same seed gives the same number.

    Raises:
        ValueError: no trials, a NaN, or numbers out of range.
    """
    if finals_N.ndim != 1 or len(finals_N) == 0 or np.isnan(finals_N).any() or k < 1:
        raise ValueError(f"finals must hold N >= 1 losses that are not NaN, and k must be >= 1, got shape {finals_N.shape} and k = {k}")
    if draws < 1:
        raise ValueError(f"draws must be >= 1, got {draws}")
    chosen = np.random.default_rng(seed).integers(0, len(finals_N), (draws, k))
    return float(finals_N[chosen].min(axis=1).mean())
