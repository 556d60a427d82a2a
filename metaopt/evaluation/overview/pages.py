"""The overview to be read: suites, axes or families down, learners and baselines across.

Learners have their intervals; a baseline has its value only, its interval is in the suite's own report.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from metaopt.evaluation.overview.saved import SavedReport
from metaopt.evaluation.reporting.cells import NOTHING, Table, line_name, number, share
from metaopt.evaluation.reporting.sections import Document, Section

__all__ = ["OUTSIDE", "overview_document"]

OUTSIDE = "†"

_HOW = (
    "Numbers are interquartile means over tasks and runs with 95 % intervals in brackets; those of baselines are in the suites' reports.",
    "Score: 0 for a run that ends where it began, 1 for one that ends where the best tuned baseline of the task ends, with failures at 0.",
    "Retention: score over the score at home. Far end: the farthest level in each direction; on an axis without an order, least: the level "
    "at which the line keeps least. s50: the shift that halves the score; '>4' if none up to 4 does. Slope: change of the retention a "
    "doubling.",
    "In figures, filled marks are levels that the learner was trained for, open ones are not, grey ones unknown; where it is shaded, all "
    "learners that say so were. Stars: where a learner falls below half of its score at home.",
    f"{OUTSIDE}: outside the training support that the learner's card names; unmarked: inside, or the card does not say.",
    "K: trials of tuning on the task itself. Learners were not tuned.",
)


def overview_document(
    reports: Sequence[SavedReport],
    links: Mapping[str, str],
    tables: Mapping[str, pd.DataFrame],
    lines: pd.DataFrame,
    failures: Mapping[str, str],
    figures: Sequence[str],
) -> Document:
    """Return the overview as a document of sections.

    Args:
        reports: what it is made of.
        links: suite -> path of its report, relative to the overview.
        tables: by name, as in `Overview.tables`.
        lines: those with a column, see `tables.shown_lines`.
        failures: suite -> why it has no report.
        figures: names of the figures of degradation curves.
    """
    names = ", ".join(lines.learner[lines.kind == "learner"].drop_duplicates())
    warned: dict[str, list[str]] = {}
    for one in reports:
        for text in one.warnings:
            warned.setdefault(text, []).append(one.suite)
    warnings = [f"{', '.join(suites)}: {text}" for text, suites in warned.items()]
    warnings += [f"{suite} failed and is missing here: {reason}" for suite, reason in failures.items()]
    title = f"Meta-generalization on {len(reports)} suites: {names}" if len(reports) != 1 else f"Meta-generalization on one suite: {names}"
    return Document(title, [], warnings, list(_sections(reports, links, tables, lines, figures)))


def _sections(
    reports: Sequence[SavedReport],
    links: Mapping[str, str],
    tables: Mapping[str, pd.DataFrame],
    lines: pd.DataFrame,
    figures: Sequence[str],
) -> Iterator[Section]:
    headline, ends, families, late = (tables[name] for name in ("headline", "far_ends", "families", "late"))
    suite, learners = {"suite": "suite"}, lines[lines.kind == "learner"]
    found = {
        "Headline": [
            _matrix(headline, suite, lines, _interval("score"), "Score (1: the best tuned baseline)"),
            _matrix(headline, suite, lines, _interval("speed_up"), "Speed-up in steps (1: the best scheduled baseline)"),
            _matrix(headline, suite, learners, _interval("improvement"), "Probability to end lower than the reference"),
            _matrix(headline, suite, lines, _failures, "Failed runs, with the interval of their rate"),
        ],
        "Degradation": _degradation(ends, lines),
        "Inside and outside the training support": [
            _matrix(tables["gaps"].assign(kind="learner", trials=1), suite, learners, _interval("gap"), "Score inside minus outside")
        ],
        "Task families": [
            _matrix(families, {"suite": "suite", "family": "family"}, lines, _interval("score"), "Score: mean of the tasks' medians")
        ],
        "Late generalisation": _late(late, lines),
    }
    for heading, shown in found.items():
        kept = [table for table in shown if table.rows]
        if kept:
            yield Section(heading, figures if heading == "Degradation" else (), kept, captioned=False)
    yield Section("Reports", tables=[_report_table(reports)], links=[(name, links[name]) for name in links])
    yield Section("How to read this", items=_HOW)


def _degradation(ends: pd.DataFrame, lines: pd.DataFrame) -> list[Table]:
    way = [f"{row.direction} to {row.level}" if isinstance(row.direction, str) else "least" for row in ends.itertuples()]
    ends, down = ends.assign(way=way), {"axis": "axis", "way": "far end"}
    ordered = ends[ends.direction.notna()]
    return [
        _matrix(ends, down, lines, _far_retention, "Retention at the far ends"),
        _matrix(ordered, down, lines, _break_point, "s50: the shift that halves the score"),
        _matrix(ordered.drop(columns="inside_support"), down, lines, _interval("slope"), "Slope of the retention a doubling"),
    ]


def _late(late: pd.DataFrame, lines: pd.DataFrame) -> list[Table]:
    down = {"suite": "suite", "task": "task"}
    return [
        _matrix(late, down, lines, lambda row: _steps(row["t_fit"]), "t_fit: first step that fits the training examples"),
        _matrix(late, down, lines, lambda row: _steps(row["t_gen"]), "t_gen: first step that does as well on held-out ones"),
    ]


def _report_table(reports: Sequence[SavedReport]) -> Table:
    def text(report: SavedReport, *names: str) -> str:
        value: Any = report.provenance
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return NOTHING if value is None else str(value)

    rows = [
        (
            one.suite,
            one.axis or NOTHING,
            str(len(one.tables["targets"])),
            *(text(one, *names) for names in (("seeds",), ("device",), ("versions", "metaopt"), ("versions", "torch"))),
        )
        for one in reports
    ]
    return Table(("suite", "axis", "tasks", "seeds", "device", "metaopt", "torch"), rows)


def _matrix(
    table: pd.DataFrame, down: Mapping[str, str], lines: pd.DataFrame, cell: Callable[[dict[str, Any]], str], caption: str
) -> Table:
    """Return a table with a row for each value of the columns `down` (column -> heading) and a column a line."""
    wanted = [line_name(line) for line in lines.to_dict("records")]
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in table.to_dict("records"):
        cells.setdefault(tuple(str(row[name]) for name in down), {})[line_name(row)] = cell(row)
    used = [name for name in wanted if any(name in found for found in cells.values())]
    rows = [(*place, *(found.get(name, NOTHING) for name in used)) for place, found in cells.items()]
    return Table((*down.values(), *used), rows if used else [], caption=caption)


def _interval(name: str) -> Callable[[dict[str, Any]], str]:
    """Return what writes `0.93† [0.88, 0.97]`, with the mark of a learner outside its support."""

    def text(row: dict[str, Any]) -> str:
        value = number(row[name])
        if value == NOTHING or row["kind"] != "learner":
            return value
        inside = row.get("inside_support")
        value += OUTSIDE if inside is not None and inside == inside and not inside else ""
        low, high = (number(row.get(f"{name}_{end}")) for end in ("low", "high"))
        return value if low == NOTHING else f"{value} [{low}, {high}]"

    return text


def _far_retention(row: dict[str, Any]) -> str:
    """Return the retention; on an axis without an order with the level that it is from, for lines may differ in it."""
    text = _interval("retention")(row)
    if isinstance(row["direction"], str) or text == NOTHING:
        return text
    value, space, interval = text.partition(" ")
    return f"{value} at {row['level']}{space}{interval}"


def _failures(row: dict[str, Any]) -> str:
    text = share(row["failures"], row["runs"])
    return text if row["kind"] != "learner" else f"{text} [{number(row['failure_rate_low'])}, {number(row['failure_rate_high'])}]"


def _break_point(row: dict[str, Any]) -> str:
    """Return s50 with its interval; what no shift reaches is more than the farthest one."""
    farthest = row["factor"] if row["direction"] == "up" else 1.0 / row["factor"]

    def shift(value: float) -> str:
        return number(value, 1) if math.isnan(value) or abs(value) < math.inf else f">{farthest:g}" if value > 0.0 else "<1"

    value, low, high = (shift(row[name]) for name in ("s50", "s50_low", "s50_high"))
    return value if row["kind"] != "learner" or value == NOTHING or value == low == high else f"{value} [{low}, {high}]"


def _steps(value: Any) -> str:
    return NOTHING if value is None or value != value else "never" if math.isinf(value) else f"{value:.0f}"
