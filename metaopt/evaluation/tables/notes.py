"""Notes: what a reader must know to believe the tables, one sentence each."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from metaopt.baselines import TRIALS, Tuned
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.suites import Suite
from metaopt.evaluation.tables.lines import Board, Line
from metaopt.evaluation.tables.results import TaskCurves

__all__ = ["contamination", "coverage", "edges_of_search", "failure_reasons", "reference_notes", "saturation", "smallest_p"]

_SIGNIFICANT = 0.05
_SHOWN = 6  # places named in one note; tables have them all


def edges_of_search(tuned: Mapping[str, Sequence[Tuned]]) -> list[str]:
    """Return which tuned baselines ended at the lowest or highest rate that was tried."""
    most = max(TRIALS)
    edges = [
        f"{one.baseline.name} on {task}"
        for task, group in sorted(tuned.items())
        for one in group
        if one.trials[most].rate in _ends([trial.rate for trial in one.baseline.trials(most)])
    ]
    return [f"best rate at an end of those tried (a wider range might do better): {_some(edges)}"] if edges else []


def contamination(candidates: Sequence[Candidate], suite: Suite) -> list[str]:
    """Return, for every learner with a card, whether tasks of the suite, or templates, were in its meta-training."""
    hashes = {task.spec.hash for task in suite.tasks}
    templates = {f"{task.spec.family}/{task.spec.template}" for task in suite.tasks}
    logs: dict[str, list[Mapping[str, object]]] = {}
    for one in candidates:
        if one.card is not None:
            logs.setdefault(one.name, []).append(one.card["training"])
    found = []
    for name, trainings in logs.items():
        tasks = hashes & {entry for log in trainings for entry in _strings(log.get("task_hashes"))}
        shared = templates & {entry for log in trainings for entry in _strings(_support(log).get("template"))}
        said = (
            f"{len(tasks)} of the suite's tasks were in its meta-training" if tasks else "no task of the suite is in its meta-training log"
        )
        found.append(f"{name}: {said}" + (f"; so were templates of it: {_some(sorted(shared))}" if shared else ""))
    return found


def failure_reasons(failures: pd.DataFrame) -> list[str]:
    """Return what failed why, one note a line, from the table `failures`."""
    found = []
    for (learner, kind, trials), rows in failures.groupby(["learner", "kind", "trials"], sort=False):
        places = [f"{task} ({reason})" for task, reason in rows[["task", "reason"]].itertuples(index=False, name=None)]
        found.append(f"failures of {Line(learner, kind, trials).label}: {_some(places)}")
    return found


def coverage(board: Board, candidates: Sequence[Candidate], tasks: int) -> list[str]:
    """Return which learners could not run on all `tasks` tasks of the suite."""
    found = []
    for name, kind in dict.fromkeys((one.name, one.kind) for one in candidates):
        line = Line(name, "learner", 1)
        count = len(board.tasks(line)) if line in board.rows else 0
        if count == 0:
            found.append(f"{name}: no task of this suite suits a learner of kind {kind}, so that it has no line")
        elif count < tasks:
            found.append(f"{name}: on {count} of {tasks} tasks, those that suit its kind ({kind}); comparisons with it use the same tasks")
    return found


def reference_notes(curves: Mapping[str, TaskCurves], unlearned: Sequence[str]) -> list[str]:
    """Return how often each baseline is a task's reference (the table of targets has them all), and where the reference did not learn."""
    counts = Counter(one.reference.partition("@")[0] for one in curves.values())
    every = ", ".join(f"{name} on {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    found = [f"references, tuned on other seeds: {every} of {len(curves)} tasks"]
    if unlearned:
        found.append(f"the reference does not end below its first loss, so that a score of 1 solves the task instead: {_some(unlearned)}")
    return found


def saturation(summary: pd.DataFrame) -> list[str]:
    """Return how many speed-ups over constant rates ended where the archive of constant rates does."""
    found = [
        f"{Line(row.learner, row.kind, row.trials).label} {row.saturated} of {row.runs} runs"
        for row in summary[summary.saturated > 0].itertuples()
    ]
    said = "speed-up over constant rates is at least what is shown where their runs end too early"
    return [f"{said}: {_some(found)}"] if found else []


def smallest_p(board: Board, learners: Sequence[Line], contrasts: int) -> list[str]:
    """Return a note if no contrast can be significant at 5 %, because so few runs are relabelled and so many contrasts are planned."""
    cubes = [board.cube(line, "score") for line in learners]
    # Baselines have one meta-seed: the runs of each task are relabelled, and either of two relabellings is the farthest.
    ways = [math.comb(cube.values[:, 0].size + len(cube.seeds), len(cube.seeds)) ** len(cube.tasks) for cube in cubes]
    smallest = max((min(1.0, 2.0 / count) for count in ways), default=0.0)
    if contrasts * smallest <= _SIGNIFICANT:
        return []
    return [
        f"the smallest p-value that so few runs can give is {smallest:.2g}, and {min(1.0, contrasts * smallest):.2g} corrected for "
        f"{contrasts} contrasts: none can be significant at 5 %, which takes more seeds, more tasks or fewer contrasts"
    ]


def _some(places: Sequence[str]) -> str:
    more = len(places) - _SHOWN
    return ", ".join(places) if more <= 1 else ", ".join(places[:_SHOWN]) + f" and {more} more"


def _ends(rates: Sequence[float]) -> tuple[float, float]:
    return min(rates), max(rates)


def _support(log: Mapping[str, object]) -> Mapping[str, object]:
    found = log.get("support")
    return found if isinstance(found, Mapping) else {}


def _strings(entries: object) -> list[str]:
    return [str(entry) for entry in entries] if isinstance(entries, list | tuple) else []
