"""From curves to tables: everything in a report that does not depend on the clock, as a pure function."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from metaopt.baselines import TRIALS, Baseline
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.runs.measure import Measured
from metaopt.evaluation.suites import Suite
from metaopt.evaluation.tables.axis_tables import axis_tables, left_out_bases
from metaopt.evaluation.tables.comparisons import contrast_table, gap_table
from metaopt.evaluation.tables.gather import REFERENCE, Gathered, gather
from metaopt.evaluation.tables.lines import Board, Line
from metaopt.evaluation.tables.notes import (
    contamination,
    coverage,
    edges_of_search,
    failure_reasons,
    reference_notes,
    saturation,
    smallest_p,
)
from metaopt.evaluation.tables.planning_table import mixed_horizons, planning_table
from metaopt.evaluation.tables.profile_tables import score_profile_table, time_profile_table
from metaopt.evaluation.tables.results import Results, make_table
from metaopt.evaluation.tables.rows import ScoredTask
from metaopt.evaluation.tables.summary import summarise, task_table
from metaopt.evaluation.tables.target_times import TargetTimes
from metaopt.evaluation.tables.tunability_table import tunability_table
from metaopt.evaluation.tables.yardsticks import MOST

__all__ = ["tabulate"]

_FROZEN = "adamw"  # what times to a target are divided by, where it was run


def tabulate(
    suite: Suite,
    candidates: Sequence[Candidate],
    chosen: Sequence[Baseline],
    measured: Measured,
    scored: Sequence[ScoredTask],
    provenance: Mapping[str, Any],
) -> Results:
    """Return all tables of an evaluation; see `results.Results`.

    Equal arguments give equal results, and no order of tasks changes anything.

    Args:
        suite: its tasks, and its axis if it has one.
        candidates: learners; those of one name are one line, with a meta-seed each.
        chosen: baselines, at least one, in the order of the report.
        measured: curves of all of them on the evaluation seeds. A learner without a result on a task of its kind failed there.
        scored: the suite's tasks.
        provenance: kept as it is.
    """
    found = gather(suite, candidates, chosen, measured, scored)
    board = Board.of(pd.concat([found.scores, found.reference]))
    learners = [line for one in candidates if (line := Line(one.name, "learner", 1)) in board.rows]
    learners = list(dict.fromkeys(learners))
    tuned = [Line(one.name, "baseline", MOST) for one in chosen]
    lines = [*learners, *(Line(one.name, "baseline", trials) for one in chosen for trials in TRIALS)]
    times = _target_times(board, found, learners, tuned)
    summary = summarise(board, lines, board.cube(REFERENCE, "final_loss"), times)
    contrasts = contrast_table(board, learners, {"reference": REFERENCE, **{line.label: line for line in tuned}})
    shifted = [line for line in lines if line.kind == "learner" or line.trials in (min(TRIALS), MOST)]
    levels, branches = axis_tables(suite, board, shifted)
    failures = _failures(found.scores, lines)
    return Results(
        provenance=dict(provenance),
        notes=[
            *coverage(board, candidates, len(found.curves)),
            *contamination(candidates, suite),
            *reference_notes(found.curves, found.unlearned),
            *_time_notes(found.targets, times.frozen),
            *left_out_bases(suite, board, shifted),
            *mixed_horizons(candidates),
            *smallest_p(board, learners, len(contrasts)),
            *saturation(summary),
            *edges_of_search(measured.tuned),
            *failure_reasons(failures),
        ],
        curves=found.curves,
        scores=found.scores,
        summary=summary,
        tasks=task_table(board, lines),
        targets=found.targets,
        contrasts=contrasts,
        gaps=gap_table(board, learners),
        score_profile=score_profile_table(board, lines),
        time_profile=time_profile_table(times, lines),
        tunability=tunability_table(measured.tuned, summary),
        levels=levels,
        branches=branches,
        planning=planning_table(board, candidates, {task.name: task.spec.horizon for task in scored}),
        failures=failures,
    )


def _target_times(board: Board, found: Gathered, learners: Sequence[Line], tuned: Sequence[Line]) -> TargetTimes:
    timed = found.targets[found.targets.target.notna()]
    horizons = dict(timed[["task", "horizon_steps"]].itertuples(index=False, name=None))
    frozen = next((line for line in tuned if line.learner == _FROZEN), tuned[0])
    return TargetTimes(board, horizons, (*learners, *tuned), frozen)


def _failures(scores: pd.DataFrame, lines: Sequence[Line]) -> pd.DataFrame:
    """Return the table `failures`, in the order of the lines."""
    rows = []
    for line in lines:
        mine = scores[(scores.learner == line.learner) & (scores.kind == line.kind) & (scores.trials == line.trials) & scores.failed]
        for (task, reason), group in mine.groupby(["task", "reason"], sort=True):
            rows.append({**line.columns, "task": task, "reason": reason, "runs": len(group)})
    return make_table("failures", rows)


def _time_notes(targets: pd.DataFrame, frozen: Line) -> list[str]:
    """Return what times to a target are divided by, and which tasks have no target."""
    without = targets[targets.target.isna()].task.tolist()
    notes = [f"times to a target are compared with those of {frozen.label} (fixed AlgoPerf score, geometric mean, time profile)"]
    if without:
        notes.append(
            f"no target, and so no part in scores of times, where a run starts at it or every baseline fails: {', '.join(without)}"
        )
    return notes
