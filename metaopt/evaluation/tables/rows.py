"""Rows: one for each run, with everything that later tables are made of.

Legend: E evaluation points, S runs (inner seeds).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from metaopt.baselines import Curves
from metaopt.evaluation.scores.run_scores import final_loss_score, score_runs
from metaopt.evaluation.scores.speedup import CONSTANT_RATE_SMOOTHING, reference_envelope, speed_up
from metaopt.evaluation.scores.targets import time_to_target
from metaopt.evaluation.tables.results import make_table
from metaopt.tasks import TaskSpec

__all__ = ["Reference", "RunLabels", "ScoredTask", "Yardstick", "failed_job_rows", "learner_rows", "sort_rows"]

Array = NDArray[np.float64]
Row = dict[str, object]


@dataclass(frozen=True)
class ScoredTask:
    """A suite's task and what every run on it shares.

    Attributes:
        name: in the suite.
        spec: the task.
        cap: its worst loss, which a failed run gets.
        inner_seeds: of runs 0 to S - 1.
        kinds: of learners that can run on it.
    """

    name: str
    spec: TaskSpec
    cap: float
    inner_seeds: tuple[int, ...]
    kinds: tuple[str, ...] = ("update_rule",)


@dataclass(frozen=True)
class Reference:
    """The best scheduled baseline configuration of one task, on the evaluation seeds.

    Attributes:
        name, rate: which one it is; chosen on tuning seeds.
        runs: horizon -> its curves under a schedule of that length.
    """

    name: str
    rate: float
    runs: dict[int, Curves]

    def envelope(self, seed: int) -> tuple[Array, Array]:
        """Return the reference of one seed; see `speedup.reference_envelope`."""
        return reference_envelope({horizon: (curves.steps, curves.heldout[:, seed]) for horizon, curves in self.runs.items()})


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What the runs on one task are measured with; see `yardsticks.make_yardstick`.

    Attributes:
        task: what they share.
        base, level: of the suite's axis; the task's own name and None without one.
        scale: by how much the loss falls at score 1, > 0.
        references: envelope of the scheduled reference, one a seed.
        constant_rates: envelope of constant rates, if it is known.
        target: loss to reach; NaN if the task has none.
    """

    task: ScoredTask
    base: str
    level: str | None
    scale: float
    references: tuple[tuple[Array, Array], ...]
    constant_rates: tuple[Array, Array] | None
    target: float


@dataclass(frozen=True)
class RunLabels:
    """Who made some runs.

    Attributes:
        learner, kind, trials: the line that they belong to.
        hash: of the learner; the name of a baseline.
        meta_seed: of the meta-training.
        settings: text of a baseline's trial.
        inside_support: whether the learner was meta-trained on tasks like this one, if that is known.
    """

    learner: str
    kind: str
    trials: int
    hash: str
    meta_seed: int = 0
    settings: str | None = None
    inside_support: bool | None = None


def learner_rows(yardstick: Yardstick, labels: RunLabels, curves: Curves) -> list[Row]:
    """Return one row for each run of a learner on a task, with the columns of `results.COLUMNS["scores"]`.

    A failed run has the worst of everything: the cap, score and speed-ups 0, and no time to the target.

    Raises:
        ValueError: as many runs as the task has seeds were planned, and there are others.
    """
    task = yardstick.task
    if curves.heldout.shape[1] != len(task.inner_seeds):
        raise ValueError(f"{labels.learner} on {task.name} must have {len(task.inner_seeds)} runs, got {curves.heldout.shape[1]}")
    runs = score_runs(curves.steps, curves.heldout, curves.train, curves.diverged, task.cap)
    # Losses are shifted so that every run starts at the scale: a run's own start is the zero of its score, the reference's fall the unit.
    start = np.full(len(runs.reasons), yardstick.scale)
    score = final_loss_score(start, start - (runs.first_loss - runs.final_loss), np.zeros_like(start), runs.failed)
    times = time_to_target(curves.steps, curves.heldout, yardstick.target)
    rows = []
    for seed, reason in enumerate(runs.reasons):
        ratio, censored, constant, saturated = 0.0, False, 0.0, False
        if reason is None:
            ratio, censored = speed_up(curves.heldout[:, seed], task.spec.horizon, yardstick.references[seed])
            if yardstick.constant_rates is not None:
                curve, archive = curves.heldout[:, seed], yardstick.constant_rates
                constant, saturated = speed_up(curve, task.spec.horizon, archive, CONSTANT_RATE_SMOOTHING)
        rows.append(
            {
                **_identity(yardstick, labels, seed),
                "first_loss": float(runs.first_loss[seed]),
                "final_loss": float(runs.final_loss[seed]),
                "final_train_loss": float(runs.final_train_loss[seed]),
                "score": float(score[seed]),
                "speed_up": ratio,
                "censored": censored,
                "constant_rate_speed_up": math.nan if yardstick.constant_rates is None else constant,
                "saturated": saturated,
                "steps_to_target": float(times[seed]) if reason is None and math.isfinite(times[seed]) else math.nan,
                "anytime": float(runs.anytime[seed]),
                "anytime_train": float(runs.anytime_train[seed]),
                "failed": reason is not None,
                "reason": reason,
            }
        )
    return rows


def failed_job_rows(yardstick: Yardstick, labels: RunLabels, reason: str) -> list[Row]:
    """Return the rows of a job that gave no curves: every run counts, with the worst scores and the reason."""
    losses = ("first_loss", "final_loss", "final_train_loss", "anytime", "anytime_train")
    worst = {**dict.fromkeys(losses, yardstick.task.cap), "score": 0.0, "speed_up": 0.0, "censored": False, "saturated": False}
    constant = math.nan if yardstick.constant_rates is None else 0.0
    missed = {"constant_rate_speed_up": constant, "steps_to_target": math.nan, "failed": True, "reason": reason}
    return [{**_identity(yardstick, labels, seed), **worst, **missed} for seed in range(len(yardstick.task.inner_seeds))]


def sort_rows(rows: Iterable[Row]) -> pd.DataFrame:
    """Return the rows as the table `scores`, in an order that does not depend on who computed them."""
    keys = ["kind", "learner", "trials", "meta_seed", "task", "seed"]
    return make_table("scores", rows).sort_values(keys, ascending=[False, *[True] * 5], ignore_index=True)


def _identity(yardstick: Yardstick, labels: RunLabels, seed: int) -> Row:
    task = yardstick.task
    return {
        "learner": labels.learner,
        "kind": labels.kind,
        "meta_seed": labels.meta_seed,
        "trials": labels.trials,
        "task": task.name,
        "base": yardstick.base,
        "level": yardstick.level,
        "family": task.spec.family,
        "seed": seed,
        "learner_hash": labels.hash,
        "task_hash": task.spec.hash,
        "inner_seed": task.inner_seeds[seed],
        "horizon_steps": task.spec.horizon,
        "inside_support": labels.inside_support,
        "settings": labels.settings,
    }
