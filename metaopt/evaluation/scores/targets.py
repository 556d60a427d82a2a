"""Time to target: the first moment at which a run is good enough and stays so, and where the target comes from.

Legend: E evaluation points, S runs (seeds), M meta-seeds, J tasks, K inner seeds. The clock is steps, seconds or samples; a miss is `inf`
and takes part in every median.

Source: Dahl et al., 2023, "Benchmarking neural network training algorithms" (AlgoPerf), section 4. Differs: a target may have to hold for
several evaluations; one reproduces AlgoPerf.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["reference_target", "study_time", "task_times", "time_to_target"]

Array = NDArray[np.float64]


def time_to_target(clock_E: Array, metric_ES: Array, target: float, evaluations: int = 1) -> Array:
    """Return when each run first has metric <= target, for `evaluations` evaluations in a row: the first of them [S], `inf` for a miss.

    A run that reaches the target too late to confirm it misses it; a metric that is not a number is above every target.

    Args:
        clock_E: steps, seconds or samples at the evaluations, increasing.
        metric_ES: lower is better (negate accuracies).
        target: see `reference_target`.
        evaluations: q >= 1.

    Raises:
        ValueError: shapes that do not fit, or evaluations < 1.
    """
    if metric_ES.ndim != 2 or metric_ES.shape[:1] != clock_E.shape or evaluations < 1:
        raise ValueError(f"metric must be [{len(clock_E)}, S] and evaluations >= 1, got {metric_ES.shape} and {evaluations}")
    if evaluations > len(clock_E):
        return np.full(metric_ES.shape[1], np.inf)
    held = np.lib.stride_tricks.sliding_window_view(metric_ES <= target, evaluations, axis=0).all(axis=-1)
    return np.where(held.any(axis=0), clock_E[held.argmax(axis=0)], np.inf)


def reference_target(metrics: Mapping[str, Array]) -> tuple[str, float]:
    """Return the tuned baseline that sets the target, and the target: its median over seeds of the best value reached.

    Args:
        metrics: baseline -> metric [E, S] of its best trial, run again on seeds that tuning did not see; lower is better. A value that is
            not a number is a run that got no better.

    Raises:
        ValueError: no baseline, or none with a finite target.
    """
    targets = {
        name: float(np.median(np.where(np.isnan(metric_ES), np.inf, metric_ES).min(axis=0))) for name, metric_ES in sorted(metrics.items())
    }
    finite = {name: target for name, target in targets.items() if np.isfinite(target)}
    if not finite:
        raise ValueError(f"no baseline gives a finite target, got {targets}")
    name = min(finite, key=finite.__getitem__)
    return name, finite[name]


def study_time(times: Array) -> Array:
    """Return the time of a workload: times [..., studies, trials] -> [...], the median over studies of the fastest trial of each."""
    time: Array = np.median(times.min(axis=-1), axis=-1)
    return time


def task_times(times: Array) -> Array:
    """Return one time a task: times [..., M, J, K] -> [..., J], the median over its runs, in which misses (`inf`) take part."""
    runs = np.moveaxis(times, -2, -3)
    median: Array = np.median(runs.reshape(*runs.shape[:-2], -1), axis=-1)
    return median
