"""What one run is worth: final loss, steps saved against a reference, area under the curve, failure.

Legend: E evaluation points, S runs (inner seeds). Losses are normalised and held out: about 1 at initialisation, about 0 when solved. The
held-out examples of a task are the same at every evaluation, so the curves carry no batch noise.

Source: Metz et al., 2022, "VeLO" (the steps that a tuned reference needs for the same loss); Dahl et al., 2023, "Benchmarking neural
network training algorithms" (a miss counts, it never vanishes). Differs: the reference is one scheduled configuration with its schedule
stretched to several horizons, instead of an envelope over constant rates.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["anytime_area", "failed_runs", "reference_envelope", "smooth", "speed_up", "steps_to_loss"]

Array = NDArray[np.float64]

# Decay between evaluation points, about 40 a run. Measured on suite quick: at 0.9 the reference needs exactly its own steps for its own
# loss on every task; at 0.5 its best point before it over-fits says that half of them were enough.
SMOOTHING = 0.9


def smooth(curve_ES: Array, decay: float = SMOOTHING) -> Array:
    """Return the bias-corrected exponential moving average along the first axis; a constant curve stays as it is."""
    weight, mean = 0.0, np.zeros_like(curve_ES[0])
    smoothed = np.empty_like(curve_ES)
    for i, value in enumerate(curve_ES):
        weight = decay * weight + 1.0
        mean = mean + (value - mean) / weight
        smoothed[i] = mean
    return smoothed


def steps_to_loss(steps_E: Array, curve_E: Array, loss: float) -> float:
    """Return the step at which a curve first reaches `loss`, by linear interpolation of its running minimum; `inf` if it never does."""
    best = np.minimum.accumulate(curve_E)
    if loss >= best[0]:
        return float(steps_E[0])
    if loss < best[-1]:
        return float("inf")
    i = int(np.argmax(best <= loss))  # the first point at or below; i >= 1, and best[i] < best[i - 1]
    share = (best[i - 1] - loss) / (best[i - 1] - best[i])
    return float(steps_E[i - 1] + share * (steps_E[i] - steps_E[i - 1]))


def reference_envelope(runs: Mapping[int, tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the lowest smoothed loss that the reference has reached by each step, given the schedule that fits so many steps.

    A run counts from the end of the next shorter one to its own end: up to the learner's horizon the reference's schedule is as long as the
    learner's, and beyond it as long as need be. A learner that repeats the reference thus needs exactly its steps.

    Args:
        runs: horizon -> (steps [E], held-out losses [E]) of one configuration and one seed.

    Returns:
        Steps [P], increasing, and losses [P], not increasing.
    """
    steps, losses, end = [], [], -1.0
    for _, (run_steps, run_losses) in sorted(runs.items()):
        beyond = run_steps > end
        steps.append(run_steps[beyond])
        losses.append(smooth(run_losses)[beyond])
        end = float(run_steps[-1])
    return np.concatenate(steps), np.minimum.accumulate(np.concatenate(losses))


def speed_up(curve_E: Array, horizon: int, reference: tuple[Array, Array]) -> tuple[float, bool]:
    """Return how many times the learner's steps the reference needs for its final loss, and whether that is censored.

    Args:
        curve_E: held-out losses of the learner's run, the last one at `horizon`.
        horizon: steps that the learner used, >= 1.
        reference: what `reference_envelope` returned; its last step over `horizon` is the limit R.

    Returns:
        Speed-up in [0, R]; (R, True) when the reference never gets there.
    """
    steps, losses = reference
    needed = steps_to_loss(steps, losses, float(smooth(curve_E)[-1]))
    return (needed / horizon, False) if np.isfinite(needed) else (float(steps[-1]) / horizon, True)


def anytime_area(steps_E: Array, curve_ES: Array) -> Array:
    """Return the mean loss over log(1 + step), one number a run [S]: low means good at every budget, not only at the end."""
    clock = np.log1p(steps_E)
    area: Array = np.trapezoid(curve_ES, clock, axis=0) / (clock[-1] - clock[0])
    return area


def failed_runs(curve_ES: Array, diverged_S: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which runs failed [S]: diverged, non-finite, or worse at the end than at the start."""
    failed: NDArray[np.bool_] = diverged_S | ~np.isfinite(curve_ES).all(axis=0) | (curve_ES[-1] > curve_ES[0])
    return failed
