"""Steps-to-loss speed-up: how many times the learner's steps a reference needs for the learner's final loss.

Two references. The best scheduled configuration is the honest one; the lower envelope over constant rates is what the literature reports,
and easier to beat, since nothing in it decays its rate. Both are censored where they end.

Legend: E evaluation points, P points of a reference, L learning rates, S seeds. Losses are normalised and held out.

Source: Metz et al., 2022, "VeLO: training versatile learned optimizers by scaling up" (the steps that a tuned Adam needs for the same
loss).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from metaopt.evaluation.scores.run_scores import SMOOTHING, smooth

__all__ = [
    "CONSTANT_RATE_SMOOTHING",
    "constant_rate_envelope",
    "matched_decay",
    "reference_envelope",
    "speed_up",
    "steps_to_loss",
    "wall_clock_speed_up",
]

CONSTANT_RATE_SMOOTHING = 0.95  # of the literature's curves
# Equal losses may differ by so much, relative to themselves, when their terms are added in another order. The reference's runs do not join
# smoothly, and a learner that repeats one of them must not fall over the edge to the next.
_ROUNDING = 1e-9

Array = NDArray[np.float64]


def steps_to_loss(steps_E: Array, curve_E: Array, loss: float) -> float:
    """Return the step at which a curve first reaches `loss`, by linear interpolation of its running minimum; `inf` if it never does."""
    best = np.minimum.accumulate(curve_E)
    if loss >= best[0]:
        return float(steps_E[0])
    enough = loss + _ROUNDING * abs(loss)
    if enough < best[-1]:
        return float("inf")
    i = int(np.argmax(best <= enough))  # the first point at or below
    if i == 0:
        return float(steps_E[0])
    share = (best[i - 1] - max(loss, best[i])) / (best[i - 1] - best[i])
    return float(steps_E[i - 1] + share * (steps_E[i] - steps_E[i - 1]))


def reference_envelope(runs: Mapping[int, tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the lowest smoothed loss that the scheduled reference has reached by each step, given the schedule that fits so many steps.

    A run counts from the end of the next shorter one to its own end: up to the learner's horizon the reference's schedule is as long as the
    learner's, and beyond it as long as need be. A learner that repeats the reference thus needs exactly its steps.

    Smoothing looks back over a window of steps: the learner's own up to its horizon T, beyond it one that grows with the step. A learner
    that does in T steps what a run of 2 T does then has exactly 2. With the window of a run's own points throughout, longer runs would lag
    behind where they begin to count, and a learner that is better than the reference by a hair would gain all of that lag.

    Args:
        runs: horizon -> (steps [E], held-out losses [E]) of one configuration and one seed; the shortest is the learner's horizon.

    Returns:
        Steps [P], increasing, and losses [P], not increasing.
    """
    steps, losses, end = [], [], -1.0
    horizon = min(runs)
    for _, (run_steps, run_losses) in sorted(runs.items()):
        beyond = run_steps > end
        steps.append(run_steps[beyond])
        losses.append(_smooth_by_step(run_steps, run_losses, runs[horizon][0])[beyond])
        end = float(run_steps[-1])
    return np.concatenate(steps), np.minimum.accumulate(np.concatenate(losses))


def constant_rate_envelope(steps_E: Array, curves_LES: Array, decay: float = CONSTANT_RATE_SMOOTHING) -> tuple[Array, Array]:
    """Return the lowest smoothed loss that any constant rate has reached by each step.

    The curve of a rate is the mean over seeds, smoothed; from the first loss of any of its seeds that is not finite, the rate is out.

    Args:
        steps_E: steps of the archive, increasing; its last one over the learner's horizon is where speed-ups saturate.
        curves_LES: held-out losses; at least 14 rates (half decades) and 5 seeds that the learner is not evaluated on, or the envelope
            is lucky where the learner cannot be.
        decay: of the smoothing, a point; the learner's curve must be smoothed over as many steps (`matched_decay`).

    Returns:
        Steps [E] and losses [E], not increasing.

    Raises:
        ValueError: shapes that do not fit, or no rate with a finite first loss.
    """
    if curves_LES.ndim != 3 or curves_LES.shape[1:2] != steps_E.shape or curves_LES.size == 0:
        raise ValueError(f"curves must be [rates, {len(steps_E)} points, seeds], got shape {curves_LES.shape}")
    usable_EL = np.logical_and.accumulate(np.isfinite(curves_LES).all(axis=2), axis=1).T
    if not usable_EL[0].any():
        raise ValueError("no rate has a finite loss at the first point, so there is no envelope")
    mean_EL = np.where(usable_EL, np.where(usable_EL[..., None], curves_LES.transpose(1, 0, 2), 0.0).mean(axis=2), 0.0)
    lowest_E = np.where(usable_EL, smooth(mean_EL, decay), np.inf).min(axis=1)
    return steps_E, np.minimum.accumulate(lowest_E)


def matched_decay(steps_E: Array, learner_steps_E: Array, decay: float = CONSTANT_RATE_SMOOTHING) -> float:
    """Return the decay, a point, that smooths an archive over as many steps as `decay` does a learner whose points are closer together.

    A longer run has as many points as a short one. With one decay for both, the archive would lag behind by so much more, and learners
    would seem faster than they are.
    """
    spacing, own = (float(one[-1] - one[0]) / (len(one) - 1) for one in (steps_E, learner_steps_E))
    return float(decay ** (spacing / own))


def speed_up(curve_E: Array, horizon: int, reference: tuple[Array, Array], decay: float = SMOOTHING) -> tuple[float, bool]:
    """Return how many times the learner's steps the reference needs for its final loss, and whether that is censored.

    Censored at either end: a learner that ends no lower than it began has exactly 0, whatever the reference's seeds began with; one that
    the reference never reaches has the reference's length R, and the flag.

    Args:
        curve_E: held-out losses of the learner's run, the last one at `horizon`.
        horizon: steps that the learner used, >= 1.
        reference: what `reference_envelope` or `constant_rate_envelope` returned; its last step over `horizon` is the limit R.
        decay: of the smoothing of the learner's curve; that of the reference.

    Returns:
        Speed-up in [0, R]; (R, True) when the reference never gets there: at least R.

    Raises:
        ValueError: horizon < 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be >= 1, got {horizon}")
    steps, losses = reference
    final = float(smooth(curve_E, decay)[-1])
    if not final < curve_E[0]:
        return 0.0, False
    needed = steps_to_loss(steps, losses, final)
    return (needed / horizon, False) if np.isfinite(needed) else (float(steps[-1]) / horizon, True)


def wall_clock_speed_up(step_speed_up: float, learner_step_s: float, reference_step_s: float) -> float:
    """Return how many times the learner's seconds the reference needs: the speed-up in steps, paid for with dearer steps.

    Args:
        step_speed_up: what `speed_up` returned, >= 0; if that is censored, so is this.
        learner_step_s, reference_step_s: seconds of a whole training step (forward, backward, update) on one machine, > 0.

    Raises:
        ValueError: a time that is not > 0.
    """
    if not (learner_step_s > 0.0 and reference_step_s > 0.0):
        raise ValueError(f"seconds of a step must be > 0, got learner {learner_step_s} and reference {reference_step_s}")
    return step_speed_up * reference_step_s / learner_step_s


def _smooth_by_step(steps_E: Array, curve_E: Array, learner_steps_E: Array) -> Array:
    """Return the moving average whose window is the learner's up to its horizon and grows in proportion to the step beyond.

    On the learner's own steps it is `smooth`; at the end of a run with as many points, too.
    """
    spacing, own = ((one[-1] - one[0]) / (len(one) - 1) for one in (steps_E, learner_steps_E))
    decay_E = SMOOTHING ** (spacing / own * np.minimum(1.0, learner_steps_E[-1] / np.maximum(steps_E, 1.0)))
    age_EE = np.subtract.outer(np.arange(len(steps_E)), np.arange(len(steps_E)))
    weights_EE = np.where(age_EE >= 0, decay_E[:, None] ** np.maximum(age_EE, 0), 0.0)
    smoothed: Array = (weights_EE * curve_E).sum(axis=1) / weights_EE.sum(axis=1)
    return smoothed
