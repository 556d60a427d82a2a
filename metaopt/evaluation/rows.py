"""Rows: one for each run, with everything that later tables are made of.

Legend: E evaluation points, S runs (inner seeds).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from metaopt.baselines import Curves
from metaopt.evaluation.scores import score_runs
from metaopt.evaluation.speedup import reference_envelope, speed_up
from metaopt.tasks import TaskSpec

__all__ = ["Reference", "ScoredTask", "failed_job_rows", "learner_rows", "sort_rows"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredTask:
    """A suite's task and what every run on it shares.

    Attributes:
        name: in the suite.
        spec: the task.
        cap: its worst loss, which a failed run gets.
        inner_seeds: of runs 0 to S - 1.
    """

    name: str
    spec: TaskSpec
    cap: float
    inner_seeds: tuple[int, ...]


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


def learner_rows(
    task: ScoredTask,
    learner: str,
    trials: int,
    curves: Curves,
    reference: Reference,
    *,
    kind: str,
    learner_hash: str,
    rate: float | None = None,
) -> list[dict[str, object]]:
    """Return one row for each run of a learner on a task. A failed run has the worst scores: the cap, and speed-up 0."""
    runs = score_runs(curves.steps, curves.heldout, curves.train, curves.diverged, task.cap)
    rows = []
    for seed, reason in enumerate(runs.reasons):
        ratio, censored = (0.0, False)
        if reason is None:
            ratio, censored = speed_up(curves.heldout[:, seed], task.spec.horizon, reference.envelope(seed))
        rows.append(
            {
                **_identity(task, learner, trials, kind, learner_hash, seed),
                "rate": rate,
                "first_loss": float(runs.first_loss[seed]),
                "final_loss": float(runs.final_loss[seed]),
                "final_train_loss": float(runs.final_train_loss[seed]),
                "speed_up": ratio,
                "censored": censored,
                "anytime": float(runs.anytime[seed]),
                "failed": reason is not None,
                "reason": reason,
            }
        )
    return rows


def failed_job_rows(task: ScoredTask, learner: str, learner_hash: str, reason: str) -> list[dict[str, object]]:
    """Return the rows of a job that gave no curves: every run counts, with the worst scores and the reason."""
    worst = {"rate": None, "first_loss": task.cap, "final_loss": task.cap, "final_train_loss": task.cap, "speed_up": 0.0, "censored": False}
    return [
        {**_identity(task, learner, 1, "learner", learner_hash, seed), **worst, "anytime": task.cap, "failed": True, "reason": reason}
        for seed in range(len(task.inner_seeds))
    ]


def sort_rows(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """Return the rows as a table in an order that does not depend on who computed them: learner, trials, task, seed."""
    return pd.DataFrame(list(rows)).sort_values(
        ["kind", "learner", "trials", "task", "seed"], ascending=[False, True, True, True, True], ignore_index=True
    )


def _identity(task: ScoredTask, learner: str, trials: int, kind: str, learner_hash: str, seed: int) -> dict[str, object]:
    return {
        "learner": learner,
        "kind": kind,
        "trials": trials,
        "task": task.name,
        "family": task.spec.family,
        "seed": seed,
        "learner_hash": learner_hash,
        "task_hash": task.spec.hash,
        "inner_seed": task.inner_seeds[seed],
        "horizon_steps": task.spec.horizon,
    }
