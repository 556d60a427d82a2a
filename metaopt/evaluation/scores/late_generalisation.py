"""When runs fit and when they generalise: the two may be far apart, and the second may never come.

Curves hold losses, not accuracies, so both moments are those at which a normalised loss is at or below a threshold.

Legend: E evaluation points, S runs.

Source: Power et al., 2022, "Grokking: generalization beyond overfitting on small algorithmic datasets", figure 1. Differs: a threshold of
losses in place of an accuracy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaopt.evaluation.scores.targets import time_to_target

__all__ = ["THRESHOLD", "LateGeneralisation", "late_generalisation"]

THRESHOLD = 0.05  # of a normalised loss: a twentieth of what a guess has

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LateGeneralisation:
    """Moments of S runs in inner steps, [S] each; `inf` for what never came.

    Attributes:
        t_fit: first evaluation with the training loss at or below the threshold. Where curves hold the mean training loss since the
            evaluation before, it may be one interval late.
        t_gen: the same of the held-out loss.
        gap: t_gen - t_fit; `inf` for a run that never generalises, -`inf` for one that does without having fitted.
        ratio: t_gen over t_fit, which counts as one step where it is 0; `inf` for a run that never generalises.
        peak: first evaluation with the largest held-out loss of the run; 0 for one that never was above its start.
    """

    t_fit: Array
    t_gen: Array
    gap: Array
    ratio: Array
    peak: Array


def late_generalisation(steps_E: Array, train_ES: Array, heldout_ES: Array, threshold: float = THRESHOLD) -> LateGeneralisation:
    """Return when each run fits and when it generalises.

    Args:
        steps_E: updates made at each evaluation, increasing.
        train_ES: normalised training losses; one that is not a number is above every threshold.
        heldout_ES: normalised held-out losses; one that is not a number counts as `inf`.
        threshold: > 0.

    Raises:
        ValueError: shapes that do not fit, no evaluation, or a threshold that is not > 0.
    """
    if heldout_ES.ndim != 2 or train_ES.shape != heldout_ES.shape or steps_E.shape != heldout_ES.shape[:1] or not len(steps_E):
        raise ValueError(f"losses must be [E, S] for E >= 1 steps, got {train_ES.shape} and {heldout_ES.shape} for {steps_E.shape}")
    if not threshold > 0.0:
        raise ValueError(f"threshold must be > 0, got {threshold}")
    t_fit, t_gen = (time_to_target(steps_E, losses, threshold) for losses in (train_ES, heldout_ES))
    never = np.isinf(t_gen)
    gap = np.where(never, np.inf, np.where(never, 0.0, t_gen) - t_fit)
    ratio = np.where(never, np.inf, np.where(never, 0.0, t_gen) / np.maximum(t_fit, 1.0))
    peak = steps_E[np.where(np.isnan(heldout_ES), np.inf, heldout_ES).argmax(axis=0)].astype(np.float64)
    return LateGeneralisation(t_fit, t_gen, gap, ratio, peak)
