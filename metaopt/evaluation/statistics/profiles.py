"""Profiles: how scores, and times relative to a reference, are distributed, with pointwise intervals.

A score profile says which share of runs is better than tau; a time profile says which share of tasks is solved within tau times the
reference's time. They answer different questions and belong into different figures.

Legend: M meta-seeds, J tasks, K inner seeds, T points of the profile.

Source: Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical precipice" (score distributions); Dolan and More,
2002, "Benchmarking optimization software with performance profiles". Differs: times are divided by one frozen reference, not by the fastest
of the field.
"""

import numpy as np
from numpy.typing import NDArray

from metaopt.evaluation.scores.targets import task_times
from metaopt.evaluation.statistics.named_axes import ScoreCube
from metaopt.evaluation.statistics.resampling import CONFIDENCE, RESAMPLES, Band, bootstrap_band

__all__ = ["score_profile", "score_profile_band", "time_profile", "time_profile_band"]

Array = NDArray[np.float64]


def score_profile(values: Array, tau_T: Array) -> Array:
    """Return the share of runs with a score above each tau: values [..., M, J, K] -> [..., T]."""
    flat = values.reshape(*values.shape[:-3], -1)
    return np.stack([(flat > tau).mean(axis=-1) for tau in tau_T], axis=-1)


def score_profile_band(
    cube: ScoreCube, tau_T: Array, generator: np.random.Generator, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Band:
    """Return the score profile of a learner with its pointwise interval; see `resampling.bootstrap_band`."""
    return bootstrap_band([cube], lambda values: score_profile(values, tau_T), generator, resamples, confidence)


def time_profile(times: Array, reference: Array, tau_T: Array) -> Array:
    """Return the share of tasks whose time is at most tau times the reference's: [..., M, J, K] twice -> [..., T].

    A missed task is never within tau, not even where the reference misses too; one that only the reference misses is within every tau.
    """
    ours, theirs = task_times(times), task_times(reference)
    solved: Array = (np.isfinite(ours)[..., None] & (ours[..., None] <= tau_T * theirs[..., None])).mean(axis=-2)
    return solved


def time_profile_band(
    cube: ScoreCube,
    reference: ScoreCube,
    tau_T: Array,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Band:
    """Return the time profile of a learner with its pointwise interval, paired with its reference; see `resampling.bootstrap_band`.

    Args:
        cube, reference: times to target (`times=True`) of the same tasks and seeds.
        tau_T: ratios, > 0.

    Raises:
        ValueError: the cubes differ in tasks, seeds or meta-seeds.
    """
    return bootstrap_band([cube, reference], lambda ours, theirs: time_profile(ours, theirs, tau_T), generator, resamples, confidence)
