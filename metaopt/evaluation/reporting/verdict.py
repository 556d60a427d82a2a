"""What the numbers say about each learner, in sentences that follow fixed rules.

A difference counts as decided if its 95 % interval excludes 0 and its p-value, corrected for all contrasts, is at most 0.05. With few
meta-seeds no p-value can be so small, whatever the learner does: where only the interval decides, the sentence says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metaopt.evaluation.reporting.cells import interval, number
from metaopt.evaluation.tables.results import Results

__all__ = ["ALPHA", "Verdict", "axis_name", "decision", "verdicts"]

ALPHA = 0.05
_REFERENCE = "reference"
_GROUPS = {
    "better": "better than",
    "worse": "worse than",
    "better?": "better by the interval alone than",
    "worse?": "worse by the interval alone than",
    "open": "not clearly different from",
}


@dataclass(frozen=True)
class Verdict:
    """A learner's result in words: one sentence for those who read only one, and the others."""

    learner: str
    sentence: str
    details: tuple[str, ...]


def verdicts(results: Results) -> list[Verdict]:
    """Return one verdict a learner, in the order of the headline."""
    found = []
    for row in results.summary[results.summary.kind == "learner"].to_dict("records"):
        learner = str(row["learner"])
        details = [*_axis(results, learner), _baselines(results, learner), _steps(row), _gap(results, learner), _failures(row)]
        found.append(Verdict(learner, _sentence(results, learner), tuple(detail for detail in details if detail)))
    return found


def decision(contrast: Mapping[str, Any]) -> str:
    """Return `better`, `worse` or `open`; with a question mark where the interval excludes 0 but the corrected p-value is too large."""
    low, high, p_value = contrast["difference_low"], contrast["difference_high"], contrast["p_holm"]
    side = "better" if low > 0.0 else "worse" if high < 0.0 else "open"
    return side if side == "open" or (p_value is not None and p_value <= ALPHA) else f"{side}?"


def axis_name(results: Results) -> str:
    """Return the name of the suite's axis."""
    axis = results.provenance.get("axis")
    return str(axis.get("name") if isinstance(axis, Mapping) else axis or "the axis")


def _sentence(results: Results, learner: str) -> str:
    tasks = results.tasks[(results.tasks.learner == learner) & (results.tasks.kind == "learner")]
    reached, count = int((tasks.score >= 1.0).sum()), len(tasks)
    if count == 1:
        start = f"{learner} {'reaches' if reached else 'does not reach'} the final loss of the best tuned baseline on its only task"
    else:
        where = f"all {count} tasks" if reached == count else f"{reached or 'none'} of {count} tasks"
        start = f"{learner} reaches the final loss of the best tuned baseline on {where}"
    rows = results.contrasts[(results.contrasts.learner == learner) & (results.contrasts.against == _REFERENCE)].to_dict("records")
    if not rows:
        return f"{start}."
    (row,) = rows
    how = decision(row)
    if how == "open":
        end = "overall the runs do not tell the two apart"
    elif how.endswith("?"):
        end = f"overall it is {how[:-1]} by the interval, but not by the corrected test (Holm p = {number(row['p_holm'])})"
    else:
        end = f"overall it is {how}"
    return f"{start}; {end}: score difference {_signed(row)}{interval(row, 'difference')}."


def _baselines(results: Results, learner: str) -> str:
    rows = results.contrasts[(results.contrasts.learner == learner) & (results.contrasts.against != _REFERENCE)].to_dict("records")
    groups: dict[str, list[str]] = {how: [] for how in _GROUPS}
    for row in rows:
        groups[decision(row)].append(f"{row['against']} ({_signed(row)}{number(row['difference'])})")
    parts = [f"{_GROUPS[how]} {_and(members)}" for how, members in groups.items() if members]
    return f"By score it is {'; '.join(parts)}." if parts else ""


def _steps(row: Mapping[str, Any]) -> str:
    if not np.isfinite(row["speed_up"]):
        return ""
    if row["speed_up"] == 0.0:
        return f"Speed-up {interval(row, 'speed_up')}: the middle half of its runs failed, or ended no lower than it began."
    side = "slower" if row["speed_up_high"] < 1.0 else "faster" if row["speed_up_low"] > 1.0 else "about as fast"
    cut = f"; {row['censored']} of {row['runs']} runs were better than the reference ever gets, and count with its limit" * bool(
        row["censored"]
    )
    return f"To its final loss the reference needs {interval(row, 'speed_up')} times its steps: it is {side}{cut}."


def _axis(results: Results, learner: str) -> list[str]:
    levels = results.levels[(results.levels.learner == learner) & (results.levels.kind == "learner")]
    if levels.empty:
        return []
    axis = axis_name(results)
    known = levels[levels.retention.notna()]
    if known.empty:
        return [f"Along {axis} nothing can be said about what it keeps, for at home it has no positive score."]
    worst = known.loc[known.retention.astype(float).idxmin()].to_dict()
    kept = f"Along {axis} it keeps least at {worst['level']}: {interval(worst, 'retention')} of its score at home."
    branches = results.branches[(results.branches.learner == learner) & (results.branches.kind == "learner")]
    points = [
        f"home {'times' if row['direction'] == 'up' else 'divided by'} {interval(row, 's50', 1)}"
        for row in branches.to_dict("records")
        if row["s50"] is not None and np.isfinite(row["s50"])
    ]
    fall = f" Half of that is gone at {_and(points)}." if points else " Half of that is gone nowhere." if len(branches) else ""
    return [kept + fall]


def _gap(results: Results, learner: str) -> str:
    rows = results.gaps[results.gaps.learner == learner].to_dict("records")
    if not rows:
        return ""
    (row,) = rows
    side = "lower" if row["gap_low"] > 0.0 else "higher" if row["gap_high"] < 0.0 else ""
    what = f"clearly {side} than" if side else "not clearly different from"
    return (
        f"Outside its training support ({row['outside_tasks']} tasks) its score is {what} inside ({row['inside_tasks']}): "
        f"inside minus outside {interval(row, 'gap')}."
    )


def _failures(row: Mapping[str, Any]) -> str:
    if row["failures"] in (0, row["runs"]):
        return f"{'All' if row['failures'] else 'None'} of its {row['runs']} runs failed."
    return f"{row['failures']} of {row['runs']} runs failed."


def _signed(contrast: Mapping[str, Any]) -> str:
    return "+" if contrast["difference"] > 0.0 else ""


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
