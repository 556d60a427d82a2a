"""Numbers and tables as text, the same in every form of the report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

__all__ = ["NOTHING", "Table", "interval", "line_name", "number", "pivot", "share", "told"]

NOTHING = "-"  # a value that is not defined


@dataclass(frozen=True)
class Table:
    """A table as text; the first column names the row.

    Attributes:
        columns: headings.
        rows: cells. `value [low, high]` is a value with its interval.
        strong: indices of the rows that stand out: those of learners.
        caption: what it shows, if its section has more than one.
        folded: whether a page may hide it until it is asked for.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()
    caption: str = ""
    folded: bool = False


def number(value: Any, digits: int = 2) -> str:
    """Return a number with so many digits behind the point; `-` where it is undefined, `inf` where it is infinite."""
    if value is None or value is pd.NA or value != value:
        return NOTHING
    value = float(value)
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def interval(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
    """Return `value [low, high]` from the three columns of `name`; only `-` where the value is undefined."""
    value = number(row[name], digits)
    return value if value == NOTHING else f"{value} [{number(row[f'{name}_low'], digits)}, {number(row[f'{name}_high'], digits)}]"


def share(count: Any, of: Any) -> str:
    """Return `count/of`."""
    return f"{int(count)}/{int(of)}"


def told(value: Any) -> str:
    """Return yes or no, or `-` where that is not known."""
    return NOTHING if value is None or value is pd.NA or value != value else "yes" if value else "no"


def line_name(row: Mapping[str, Any]) -> str:
    """Return what a line is called: a learner's name, or a baseline's with its number of trials."""
    return str(row["learner"]) if row["kind"] == "learner" else f"{row['learner']} K={row['trials']}"


def pivot(table: pd.DataFrame, column: str, lines: Sequence[str], tasks: Sequence[str], digits: int) -> list[list[str]]:
    """Return a row a task with one column of the table for each line; `-` where the line did not run there."""
    found = {(row["task"], line_name(row)): row[column] for row in table.to_dict("records")}
    return [[task, *(number(found.get((task, line)), digits) for line in lines)] for task in tasks]
