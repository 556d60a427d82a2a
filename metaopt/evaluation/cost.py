"""What a learner's steps cost beside those of the reference, and what that leaves of its speed-up. Everything here depends on the clock."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from metaopt.baselines import TRIALS
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.runs.measure import Measured
from metaopt.evaluation.runs.step_time import step_seconds
from metaopt.evaluation.scores.speedup import wall_clock_speed_up
from metaopt.evaluation.statistics.aggregates import interquartile_mean
from metaopt.evaluation.suites import Suite, SuiteTask
from metaopt.progress import Progress

__all__ = ["REFERENCE_LINE", "time_steps", "wall_clock"]

REFERENCE_LINE = "reference"


def time_steps(
    suite: Suite, candidates: Sequence[Candidate], measured: Measured, device: str, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Return one row a task and line (every learner, and the task's reference) with the seconds of one training step.

    On a suite with an axis only tasks at home are timed; of several meta-seeds, the first. What failed as a job is not timed.
    """
    timed = [task for task in suite.tasks if suite.axis is None or task.level == suite.axis.home]
    rows: list[dict[str, Any]] = []
    for i, task in enumerate(sorted(timed, key=lambda task: task.name)):
        found = {one.name: (one.learner, one.theta) for one in reversed(candidates) if _ran(one, task, measured)}
        best = next(one for one in measured.tuned[task.name] if one.baseline.name == measured.references[task.name].name)
        values = best.trials[max(TRIALS)].hyperparameters
        found[REFERENCE_LINE] = (best.baseline.learner(), {name: torch.tensor(value) for name, value in values.items()})
        rows += [
            {"task": task.name, "line": line, "seconds": step_seconds(learner, theta, task.spec, device)}
            for line, (learner, theta) in sorted(found.items())
        ]
        if progress is not None:
            progress("step times", i + 1, len(timed))
    return rows


def wall_clock(step_rows: Sequence[Mapping[str, Any]], scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row a learner: its step over the reference's (median over tasks), and the interquartile mean of wall-clock speed-ups.

    Args:
        step_rows: what `time_steps` returned.
        scores: the table of runs; those on tasks that were timed count.
    """
    seconds = {(row["task"], row["line"]): float(row["seconds"]) for row in step_rows}
    found = []
    learners = scores[scores.kind == "learner"]
    for learner, runs in learners.groupby("learner", sort=False):
        timed = runs[[(task, learner) in seconds for task in runs.task]]
        if timed.empty:
            continue
        costs = [(seconds[task, learner], seconds[task, REFERENCE_LINE]) for task in timed.task]
        gained = [wall_clock_speed_up(speed, *cost) for speed, cost in zip(timed.speed_up, costs, strict=True)]
        ratio = float(pd.Series([own / other for own, other in costs]).median())
        speed_up = float(interquartile_mean(pd.Series(gained).to_numpy().reshape(1, -1, 1)))
        found.append({"learner": learner, "step_ratio": ratio, "speed_up": speed_up})
    return found


def _ran(candidate: Candidate, task: SuiteTask, measured: Measured) -> bool:
    return not isinstance(measured.learners.get((candidate.name, candidate.meta_seed, task.name), ""), str)
