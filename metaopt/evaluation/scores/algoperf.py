"""Benchmark scores from times to target: AlgoPerf's, its version with a fixed reference, and the geometric-mean speed-up.

AlgoPerf divides by the fastest of the field, so that a score changes when somebody else enters. The other two divide by one frozen
baseline; print all three.

Legend: N submissions, W workloads, R the limit of the ratio. Times are > 0; a miss is `inf`.

Source: Dahl et al., 2023, "Benchmarking neural network training algorithms" (AlgoPerf), section 4.4; Dolan and More, 2002, "Benchmarking
optimization software with performance profiles". Differs: the integral of the profile in closed form, without a grid.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["algoperf_score", "geometric_mean_speed_up", "performance_ratios", "reference_fixed_score"]

RATIO_LIMIT = 4.0

Array = NDArray[np.float64]


def performance_ratios(times_NW: Array) -> Array:
    """Return each time over the fastest of its workload [N, W], >= 1; `inf` for a miss, also where everybody misses.

    Raises:
        ValueError: a time that is not > 0.
    """
    return _ratios(times_NW, np.min(times_NW, axis=0, keepdims=True))


def algoperf_score(times_NW: Array, limit: float = RATIO_LIMIT) -> Array:
    """Return the AlgoPerf score of each submission [N], in [0, 1].

    The score is the integral over tau in [1, R] of rho(tau) / (R - 1), where rho(tau) is the share of workloads with a ratio <= tau. Each
    workload adds the part of [1, R] beyond its ratio, hence mean over workloads of max(0, R - ratio) / (R - 1).

    Args:
        times_NW: times to target of the whole field.
        limit: R > 1; ratios from R on count like misses.

    Raises:
        ValueError: a time that is not > 0, or limit <= 1.
    """
    return _score(performance_ratios(times_NW), limit)


def reference_fixed_score(times: Array, reference: Array, limit: float = RATIO_LIMIT) -> Array:
    """Return the same score with one frozen baseline instead of the fastest of the field: [..., W] -> [...], in [0, 1].

    Faster than the reference counts as equal to it (the geometric mean shows by how much); so does reaching what the reference misses.

    Args:
        times: of one learner.
        reference: of the baseline, of a shape that broadcasts.
        limit: R > 1.

    Raises:
        ValueError: a time that is not > 0, or limit <= 1.
    """
    return _score(np.maximum(1.0, _ratios(times, reference)), limit)


def geometric_mean_speed_up(times: Array, reference: Array, budget_W: Array) -> Array:
    """Return the geometric mean over workloads of reference time over time: [..., W] -> [...].

    Args:
        times: of one learner.
        reference: of the baseline, of a shape that broadcasts.
        budget_W: of each workload, in the unit of the times; a miss, on either side, takes budget + 1.

    Raises:
        ValueError: a time that is not > 0, or a finite one above its budget.
    """
    over = [np.isfinite(one) & (one > budget_W) for one in (times, reference)]
    if any(one.any() for one in over):
        raise ValueError("a time is above its budget: it must be a miss (inf)")
    _check_times(times, reference)
    ours, theirs = (np.where(np.isinf(one), budget_W + 1.0, one) for one in (times, reference))
    mean: Array = np.exp(np.mean(np.log(theirs) - np.log(ours), axis=-1))
    return mean


def _ratios(times: Array, denominator: Array) -> Array:
    """Return times / denominator with `inf` for every miss, 0 where only the denominator is one."""
    _check_times(times, denominator)
    missed = np.isinf(times)
    ratios: Array = np.where(missed, np.inf, np.where(missed, 1.0, times) / denominator)
    return ratios


def _score(ratios: Array, limit: float) -> Array:
    if not limit > 1.0:
        raise ValueError(f"limit must be > 1, got {limit}")
    score: Array = np.maximum(0.0, limit - ratios).mean(axis=-1) / (limit - 1.0)
    return score


def _check_times(*times: Array) -> None:
    if not all((one > 0.0).all() for one in times):
        raise ValueError("times must be > 0 (inf for a miss): a target that is met before the first step measures nothing")
