"""What one run is worth: final loss, area under the curve, failure; training and held-out losses side by side.

Legend: E evaluation points, S runs (inner seeds). Losses are normalised: about 1 at initialisation, about 0 when solved. The held-out
examples of a task are the same at every evaluation, so the curves carry no batch noise.

Source: Metz et al., 2022, "VeLO" (normalised final losses); Schneider et al., 2019, "DeepOBS" (report training and test performance);
Clopper and Pearson, 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial" (failure rate).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from metaopt.evaluation.statistics.resampling import CONFIDENCE, Interval

__all__ = [
    "RunScores",
    "anytime_area",
    "failed_runs",
    "failure_rate",
    "failure_reasons",
    "final_loss_score",
    "score_runs",
    "smooth",
]

Array = NDArray[np.float64]

# Decay between evaluation points, about 40 a run. Measured on suite quick: at 0.9 the reference needs exactly its own steps for its own
# loss on every task; at 0.5 its best point before it over-fits says that half of them were enough.
SMOOTHING = 0.9


@dataclass(frozen=True, eq=False)
class RunScores:
    """Training and held-out scores of S runs side by side; a failed run has the worst value of each.

    Attributes:
        first_loss: held-out loss before the first step.
        final_loss, final_train_loss: after the last step.
        anytime, anytime_train: mean over the logarithm of the step; see `anytime_area`.
        reasons: why a run failed, None if it did not.
    """

    first_loss: Array
    final_loss: Array
    final_train_loss: Array
    anytime: Array
    anytime_train: Array
    reasons: tuple[str | None, ...]

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which runs failed [S]."""
        return np.array([reason is not None for reason in self.reasons])

    @property
    def generalisation_gap(self) -> Array:
        """Held-out minus training loss after the last step [S]; 0 for a failed run, which has learned nothing to generalise."""
        return self.final_loss - self.final_train_loss


def score_runs(steps_E: Array, heldout_ES: Array, train_ES: Array, diverged_S: NDArray[np.bool_], worst_loss: float) -> RunScores:
    """Return the scores of the runs of one learner on one task.

    Args:
        steps_E: steps at which losses were measured; the first is 0.
        heldout_ES, train_ES: normalised losses.
        diverged_S: runs that the inner loop called diverged.
        worst_loss: what a failed run gets: the task's cap. A first loss that is not finite becomes it, too.
    """
    reasons = failure_reasons(heldout_ES, diverged_S)
    failed_S = np.array([reason is not None for reason in reasons])

    def worst_where_failed(score_S: Array) -> Array:
        return np.where(failed_S | ~np.isfinite(score_S), worst_loss, score_S)

    return RunScores(
        first_loss=np.where(np.isfinite(heldout_ES[0]), heldout_ES[0], worst_loss),
        final_loss=worst_where_failed(heldout_ES[-1]),
        final_train_loss=worst_where_failed(train_ES[-1]),
        anytime=worst_where_failed(anytime_area(steps_E, heldout_ES)),
        anytime_train=worst_where_failed(anytime_area(steps_E, train_ES)),
        reasons=reasons,
    )


def smooth(curve_ES: Array, decay: float = SMOOTHING) -> Array:
    """Return the bias-corrected exponential moving average along the first axis; a constant curve stays as it is."""
    weight, mean = 0.0, np.zeros_like(curve_ES[0])
    smoothed = np.empty_like(curve_ES)
    for i, value in enumerate(curve_ES):
        weight = decay * weight + 1.0
        mean = mean + (value - mean) / weight
        smoothed[i] = mean
    return smoothed


def final_loss_score(first: Array, final: Array, reference: Array, failed: NDArray[np.bool_]) -> Array:
    """Return (first - final) / (first - reference): 0 for a learner that does nothing, 1 for the reference, more for a better one.

    Args:
        first: loss before the first step, any shape.
        final: loss after the last step, same shape.
        reference: final loss of the reference, of a shape that broadcasts. Its median over the seeds of a task keeps the scale of the
            score from being noise, and from being that of a run that failed.
        failed: which runs failed, same shape as `final`; they score 0, the worst, whatever their loss.

    Returns:
        Scores, >= 0, not changed by an affine change of the loss.

    Raises:
        ValueError: the reference does not end below the first loss somewhere: there is no scale, and leaving such tasks out would keep
            only those where the reference works.

    Source: Metz et al., 2022, "VeLO". Differs: failures score 0 and are counted.
    """
    scale = np.broadcast_to(first - reference, np.shape(final))
    if not (scale > 0.0).all():
        raise ValueError(f"reference must end below the first loss, but does not in {int((~(scale > 0.0)).sum())} of {scale.size} runs")
    gained = np.divide(first - final, scale, out=np.zeros(np.shape(final)), where=~failed)
    score: Array = np.maximum(gained, 0.0)
    return score


def anytime_area(steps_E: Array, curve_ES: Array) -> Array:
    """Return the mean loss over log(1 + step), one number a run [S]: low means good at every budget, not only at the end."""
    clock = np.log1p(steps_E)
    area: Array = np.trapezoid(curve_ES, clock, axis=0) / (clock[-1] - clock[0])
    return area


def failure_reasons(curve_ES: Array, diverged_S: NDArray[np.bool_]) -> tuple[str | None, ...]:
    """Return why each run failed, or None: it diverged, had a loss that is not finite, or ended above its first loss."""
    reasons: list[str | None] = []
    for curve_E, diverged in zip(curve_ES.T, diverged_S, strict=True):
        if diverged:
            reasons.append("diverged")
        elif not np.isfinite(curve_E).all():
            reasons.append("loss not finite")
        else:
            reasons.append("ends above its first loss" if curve_E[-1] > curve_E[0] else None)
    return tuple(reasons)


def failed_runs(curve_ES: Array, diverged_S: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which runs failed [S]: those with a reason in `failure_reasons`."""
    return np.array([reason is not None for reason in failure_reasons(curve_ES, diverged_S)])


def failure_rate(failures: int, runs: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the share of failed runs with its exact binomial interval: 0 of 120 leaves room for 3 %, which a bootstrap cannot see.

    Runs count as independent; failures that come in whole tasks make the interval too narrow.

    Raises:
        ValueError: not 0 <= failures <= runs, or no runs.
    """
    if runs < 1 or not 0 <= failures <= runs:
        raise ValueError(f"failures must be in [0, runs] and runs >= 1, got {failures} of {runs}")
    tail = 0.5 * (1.0 - confidence)
    low = 0.0 if failures == 0 else float(betaincinv(failures, runs - failures + 1, tail))
    high = 1.0 if failures == runs else float(betaincinv(failures + 1, runs - failures, 1.0 - tail))
    return Interval(failures / runs, low, high)
