"""What the runs on a task are measured with: the scale of its score, the envelopes of its references, its target.

All of it comes from baselines, so that no learner changes what another one is measured with.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from metaopt.baselines import TRIALS, Curves, Trial, Tuned
from metaopt.evaluation.scores.run_scores import RunScores, failed_runs, score_runs
from metaopt.evaluation.scores.targets import reference_target
from metaopt.evaluation.tables.rows import Array, Reference, ScoredTask, Yardstick

__all__ = ["make_yardstick", "reference_settings", "task_target"]

MOST = max(TRIALS)  # the budget of reference, targets and comparisons


def make_yardstick(
    task: ScoredTask, base: str, level: str | None, reference: Reference, envelope: tuple[Array, Array] | None, target: float
) -> tuple[Yardstick, str | None]:
    """Return what a task's runs are measured with, and what is odd about it, if anything.

    A score of 1 is the median fall of the reference's loss over the evaluation seeds: of the mean, one seed on which the reference diverges
    would make everybody else's score several times as large. Where the median does not fall there is no such scale; a score of 1 then
    solves the task, for leaving it out would keep only tasks where the reference works.

    Args:
        task: what every run shares.
        base, level: of the suite's axis.
        reference: the best scheduled configuration.
        envelope: of constant rates, if it is known.
        target: see `task_target`.
    """
    runs = _runs(task, reference.runs[task.spec.horizon])
    first, final = float(np.median(runs.first_loss)), float(np.median(runs.final_loss))
    scale, odd = float(np.median(runs.first_loss - runs.final_loss)), None
    if not scale > 0.0:
        scale = first if first > 0.0 else 1.0
        odd = f"{task.name} (from {first:.3g} to {final:.3g})"
    envelopes = tuple(reference.envelope(seed) for seed in range(len(task.inner_seeds)))
    return Yardstick(task, base, level, scale, envelopes, envelope, target), odd


def task_target(
    task: ScoredTask, tuned: Sequence[Tuned], curves: Mapping[tuple[str, str, Trial], Curves], learners: Iterable[Curves]
) -> tuple[float, str | None]:
    """Return the loss that tuned baselines reach, NaN if there is none, and which of them sets it; see `targets.reference_target`.

    A failed run reaches nothing. A task of which any run starts at its target has none: times from there measure nothing.

    Args:
        task: what every run shares.
        tuned: its baselines.
        curves: (task, baseline, trial) -> curves on the evaluation seeds.
        learners: curves of all learners on this task, which matter only for where they start.
    """
    best = {one.baseline.name: curves[task.name, one.baseline.name, one.trials[MOST]] for one in tuned}
    metrics = {name: np.where(failed_runs(runs.heldout, runs.diverged), np.inf, runs.heldout) for name, runs in best.items()}
    first = min(float(_runs(task, runs).first_loss.min()) for runs in (*best.values(), *learners))
    try:
        name, target = reference_target(metrics)
    except ValueError:  # half of the runs of every baseline failed
        return math.nan, None
    return (target, name) if target < first else (math.nan, None)


def reference_settings(reference: Reference, tuned: Sequence[Tuned]) -> str:
    """Return the reference as text, `baseline@settings`."""
    best = next(one for one in tuned if one.baseline.name == reference.name)
    return f"{reference.name}@{best.baseline.option(best.trials[MOST])}"


def _runs(task: ScoredTask, curves: Curves) -> RunScores:
    return score_runs(curves.steps, curves.heldout, curves.train, curves.diverged, task.cap)
