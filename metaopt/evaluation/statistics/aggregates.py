"""Aggregates: one number for all runs of a learner.

All take values [..., M, J, K] (M meta-seeds, J tasks, K inner seeds) and return [...], so that the bootstrap can hand over all resamples at
once. None of them drops a run; a failed one holds the worst score.

Source: Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical precipice" (interquartile mean, median of task
means, optimality gap); Rockafellar and Uryasev, 2002, "Conditional value-at-risk for general loss distributions" (the worst decile).
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["interquartile_mean", "median_of_task_means", "optimality_gap", "overall_mean", "worst_decile"]

WORST_FRAC = 0.1

Array = NDArray[np.float64]


def interquartile_mean(values: Array) -> Array:
    """Return the mean of the middle half of the runs: values [..., M, J, K] -> [...], dropping floor(n / 4) runs at either end."""
    flat = np.sort(values.reshape(*values.shape[:-3], -1), axis=-1)
    count = flat.shape[-1]
    middle: Array = flat[..., count // 4 : count - count // 4].mean(axis=-1)
    return middle


def overall_mean(values: Array) -> Array:
    """Return the mean of all runs: values [..., M, J, K] -> [...]. Of failures (0 or 1) it is the failure rate."""
    mean: Array = values.mean(axis=(-3, -2, -1))
    return mean


def median_of_task_means(values: Array) -> Array:
    """Return the median over tasks of the mean over their runs: values [..., M, J, K] -> [...]."""
    median: Array = np.median(values.mean(axis=(-3, -1)), axis=-1)
    return median


def worst_decile(values: Array, frac: float = WORST_FRAC) -> Array:
    """Return the mean of the worst tenth of the runs (CVaR): values [..., M, J, K] -> [...]. Higher scores are better; negate losses.

    The run at the edge counts with the share that is missing to exactly `frac` of all; with ten runs or fewer it is the minimum.

    Raises:
        ValueError: frac outside (0, 1].
    """
    if not 0.0 < frac <= 1.0:
        raise ValueError(f"frac must be in (0, 1], got {frac}")
    flat = np.sort(values.reshape(*values.shape[:-3], -1), axis=-1)
    size = frac * flat.shape[-1]
    weights = np.clip(size - np.arange(math.ceil(size)), 0.0, 1.0)
    tail: Array = (flat[..., : len(weights)] * weights).sum(axis=-1) / size
    return tail


def optimality_gap(values: Array, target: float = 1.0) -> Array:
    """Return by how much runs fall short of `target` on average: values [..., M, J, K] -> [...], shortfalls below 0 count as 0."""
    gap: Array = np.maximum(0.0, target - values).mean(axis=(-3, -2, -1))
    return gap
