"""From curves to rows: what every run of an evaluation is worth, and what it was measured with."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from metaopt.baselines import TRIALS, Baseline, Curves
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.runs.measure import Measured
from metaopt.evaluation.suites import Suite, SuiteTask
from metaopt.evaluation.support import inside_support
from metaopt.evaluation.tables.lines import Line
from metaopt.evaluation.tables.results import TaskCurves, make_table
from metaopt.evaluation.tables.rows import Row, RunLabels, ScoredTask, Yardstick, failed_job_rows, learner_rows, sort_rows
from metaopt.evaluation.tables.yardsticks import MOST, make_yardstick, reference_settings, task_target

__all__ = ["REFERENCE", "Gathered", "gather"]

REFERENCE = Line("reference", "reference", MOST)


@dataclass(frozen=True, eq=False)
class Gathered:
    """Rows of an evaluation and where they come from; everything by task name, sorted.

    Attributes:
        scores: the table of that name.
        reference: rows of the best scheduled configuration of each task, as the line `REFERENCE`.
        targets: the table of that name.
        curves: what is drawn.
        unlearned: tasks on which the reference did not learn, with its losses, as text.
    """

    scores: pd.DataFrame
    reference: pd.DataFrame
    targets: pd.DataFrame
    curves: dict[str, TaskCurves]
    unlearned: list[str]


def gather(
    suite: Suite, candidates: Sequence[Candidate], chosen: Sequence[Baseline], measured: Measured, scored: Iterable[ScoredTask]
) -> Gathered:
    """Return the rows of all runs; arguments as in `tabulate.tabulate`."""
    planned = {task.name: task for task in suite.tasks}
    axis = suite.axis.name if suite.axis is not None else None
    scores: list[Row] = []
    reference: list[Row] = []
    targets: list[dict[str, object]] = []
    curves: dict[str, TaskCurves] = {}
    unlearned = []
    for task in sorted(scored, key=lambda task: task.name):
        place = planned[task.name]
        curves[task.name] = _drawn(task, candidates, chosen, measured)
        target, target_by = task_target(task, measured.tuned[task.name], measured.baselines, curves[task.name].learners.values())
        envelope = measured.envelopes.get(task.name)
        stick, odd = make_yardstick(task, place.base, place.level, measured.references[task.name], envelope, target)
        unlearned += [odd] if odd is not None else []
        for candidate in candidates:
            scores += _candidate_rows(stick, place, axis, candidate, measured)
        scores += _baseline_rows(stick, chosen, measured)
        labels = RunLabels(REFERENCE.learner, REFERENCE.kind, REFERENCE.trials, REFERENCE.learner)
        reference += learner_rows(stick, labels, measured.references[task.name].runs[task.spec.horizon])
        targets.append(_target_row(task, place, target, target_by, curves[task.name].reference))
    return Gathered(sort_rows(scores), sort_rows(reference), make_table("targets", targets), curves, unlearned)


def _candidate_rows(stick: Yardstick, place: SuiteTask, axis: str | None, candidate: Candidate, measured: Measured) -> list[Row]:
    """Return the rows of one meta-training on one task; none if its kind cannot run there."""
    if candidate.kind not in place.kinds:
        return []
    inside = None if candidate.card is None else inside_support(candidate.card, place.spec, axis)
    labels = RunLabels(candidate.name, "learner", 1, candidate.hash, candidate.meta_seed, inside_support=inside)
    curves = measured.learners.get((candidate.name, candidate.meta_seed, place.name), "no result")
    return failed_job_rows(stick, labels, curves) if isinstance(curves, str) else learner_rows(stick, labels, curves)


def _baseline_rows(stick: Yardstick, chosen: Sequence[Baseline], measured: Measured) -> Iterator[Row]:
    found = {one.baseline.name: one for one in measured.tuned[stick.task.name]}
    for baseline in chosen:
        for trials in TRIALS:
            trial = found[baseline.name].trials[trials]
            labels = RunLabels(baseline.name, "baseline", trials, baseline.name, settings=baseline.option(trial))
            yield from learner_rows(stick, labels, measured.baselines[stick.task.name, baseline.name, trial])


def _drawn(task: ScoredTask, candidates: Sequence[Candidate], chosen: Sequence[Baseline], measured: Measured) -> TaskCurves:
    """Return what is drawn for a task: all learners that ran, and each baseline at its largest number of trials."""
    tuned = measured.tuned[task.name]
    learners: dict[str, list[Curves]] = {}
    for one in candidates:
        curves = measured.learners.get((one.name, one.meta_seed, task.name), "")
        if not isinstance(curves, str):
            learners.setdefault(one.name, []).append(curves)
    best = {one.baseline.name: one.trials[MOST] for one in tuned}
    baselines = {f"{one.name} K={MOST}": measured.baselines[task.name, one.name, best[one.name]] for one in chosen}
    reference = reference_settings(measured.references[task.name], tuned)
    return TaskCurves(task.spec, reference, {name: Curves.join(parts) for name, parts in learners.items()}, baselines)


def _target_row(task: ScoredTask, place: SuiteTask, target: float, target_by: str | None, reference: str) -> dict[str, object]:
    return {
        "task": task.name,
        "family": task.spec.family,
        "template": task.spec.template,
        "horizon_steps": task.spec.horizon,
        "target": target if math.isfinite(target) else math.nan,
        "target_by": target_by,
        "reference": reference,
        "kinds": ", ".join(place.kinds),
    }
