"""Tables over several reports: headline by suite, far ends of every axis, scores by family.

A line is (learner, kind, trials), as in `metaopt.evaluation.tables.results`; a row of a table over several reports says its suite too.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from metaopt.evaluation.overview.saved import SavedReport

__all__ = ["LINE", "all_lines", "family_scores", "far_ends", "shown_lines", "stacked"]

LINE = ("learner", "kind", "trials")
_NUMBERS = ("score", "retention", "s50", "slope", "area")


def stacked(reports: Sequence[SavedReport], name: str) -> pd.DataFrame:
    """Return one table of all reports under each other, with the suite in front."""
    parts = [one.tables[name].assign(suite=one.suite) for one in reports if len(one.tables[name])]
    table = pd.concat(parts, ignore_index=True) if parts else reports[0].tables[name].assign(suite="")
    return table[["suite", *(column for column in table.columns if column != "suite")]]


def all_lines(reports: Sequence[SavedReport]) -> pd.DataFrame:
    """Return every line of any report once: learners first, each kind in the order in which it is met."""
    lines = stacked(reports, "summary")[list(LINE)].drop_duplicates()
    return pd.concat([lines[lines.kind == "learner"], lines[lines.kind != "learner"]], ignore_index=True)


def shown_lines(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the lines that tables over suites have room for: learners, and each baseline at its largest and smallest number of trials."""
    baselines = lines[lines.kind == "baseline"]
    ends = [baselines[baselines.trials == end] for end in dict.fromkeys((baselines.trials.max(), baselines.trials.min())) if len(baselines)]
    return pd.concat([lines[lines.kind == "learner"], *ends], ignore_index=True)


def far_ends(reports: Sequence[SavedReport]) -> pd.DataFrame:
    """Return one row a line, axis and direction: the level farthest from home, what is left there, and the branch's numbers.

    On an axis without factors there are no directions (None), and the level is the one with the least retention.
    """
    rows = [row for one in reports if one.axis for row in _ends_of(one)]
    columns = ["suite", "axis", *LINE, "direction", "level", "factor", "inside_support", "falls_throughout"]
    return pd.DataFrame(rows, columns=[*columns, *(f"{name}{end}" for name in _NUMBERS for end in ("", "_low", "_high"))])


def family_scores(reports: Sequence[SavedReport]) -> pd.DataFrame:
    """Return the score of each line on each family of the suites without an axis: the mean of the tasks' medians.

    `inside_support` is whether all of these tasks are inside the line's training support, None where its card does not say.
    """
    plain = [one for one in reports if one.axis is None]
    if not plain:
        return pd.DataFrame(columns=["suite", "family", *LINE, "tasks", "score", "inside_support"])
    tasks = stacked(plain, "tasks").merge(stacked(plain, "targets")[["suite", "task", "family"]], on=["suite", "task"])
    return (
        tasks.groupby(["suite", "family", *LINE], sort=False)
        .agg(tasks=("task", "size"), score=("score", "mean"), inside_support=("inside_support", _all_inside))
        .reset_index()
    )


def _ends_of(report: SavedReport) -> Iterator[dict[str, Any]]:
    levels, branches = report.tables["levels"], report.tables["branches"]
    for line, rows in levels.groupby(list(LINE), sort=False):
        start = {"suite": report.suite, "axis": report.axis, **dict(zip(LINE, line, strict=True))}
        if rows.factor.isna().any():
            left = rows[rows.retention.notna()]
            if len(left):
                yield start | {"direction": None} | _level(left.loc[left.retention.idxmin()])
            continue
        ours = branches[(branches[list(LINE)] == list(line)).all(axis=1)]
        for _, branch in ours.iterrows():
            far = rows.loc[rows.factor.idxmax() if branch.direction == "up" else rows.factor.idxmin()]
            yield start | _level(far) | {name: branch[name] for name in branches.columns if name not in LINE}


def _level(row: pd.Series) -> dict[str, Any]:
    return {name: row[name] for name in row.index if name not in LINE}


def _all_inside(flags: pd.Series) -> bool | None:
    return None if any(flag is None or flag != flag for flag in flags) else all(map(bool, flags))
