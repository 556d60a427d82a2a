"""What the best of K trials is worth, from the record of more than K.

Legend: N recorded trials.

Source: Dodge et al., 2019, "Show your work: improved reporting of experimental results", equation (3).
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["exact_best_of_k", "expected_best_of_k"]

Array = NDArray[np.float64]


def expected_best_of_k(finals_N: Array, k: int, draws: int, seed: int) -> float:
    """Return the mean, over bootstrap draws of k trials with replacement, of the lowest loss; `exact_best_of_k` is its limit.

    Args:
        finals_N: final loss of each trial, `inf` or the task's cap for a failed one.
        k: trials that one may spend, >= 1.
        draws: of the bootstrap, >= 1.
        seed: of the draws; the same seed gives the same number.

    Raises:
        ValueError: no trials, a NaN, or numbers out of range.
    """
    _check(finals_N, k)
    if draws < 1:
        raise ValueError(f"draws must be >= 1, got {draws}")
    chosen = np.random.default_rng(seed).integers(0, len(finals_N), (draws, k))
    return float(finals_N[chosen].min(axis=1).mean())


def exact_best_of_k(finals_N: Array, k: int) -> float:
    """Return the same without a bootstrap: the i-th lowest of N is the best of k with probability ((N-i+1)/N)^k - ((N-i)/N)^k.

    Raises:
        ValueError: no trials, a NaN, or k < 1.
    """
    _check(finals_N, k)
    count = len(finals_N)
    left = (np.arange(count, -1, -1) / count) ** k
    chances = left[:-1] - left[1:]
    used = chances > 0  # 0 * inf
    return float((np.sort(finals_N)[used] * chances[used]).sum())


def _check(finals_N: Array, k: int) -> None:
    if finals_N.ndim != 1 or len(finals_N) == 0 or np.isnan(finals_N).any() or k < 1:
        raise ValueError(f"finals must hold N >= 1 losses that are not NaN, and k must be >= 1, got shape {finals_N.shape} and k = {k}")
