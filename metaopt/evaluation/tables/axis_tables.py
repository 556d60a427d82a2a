"""Tables of a suite with an axis: how each line's score changes with the level, against its own score at home."""

from collections.abc import Sequence

import pandas as pd

from metaopt.evaluation.statistics.degradation import DegradationCurve, Level, degradation_curve
from metaopt.evaluation.statistics.named_axes import AXES, ScoreCube
from metaopt.evaluation.suites import Axis, Suite
from metaopt.evaluation.tables.lines import Board, Line, columns_of, generator
from metaopt.evaluation.tables.results import make_table

__all__ = ["axis_tables", "left_out_bases"]


def axis_tables(suite: Suite, board: Board, lines: Sequence[Line]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables `levels` and `branches` of these lines, empty on a suite without an axis.

    Levels are compared on the base tasks that a line ran on at every level; a line without such a task has no rows.
    """
    levels: list[dict[str, object]] = []
    branches: list[dict[str, object]] = []
    curves = {} if suite.axis is None else {line: _curve(suite, suite.axis, board, line) for line in lines}
    for line, curve in curves.items():
        if curve is not None:
            levels += _level_rows(line, curve)
            branches += _branch_rows(line, curve)
    return make_table("levels", levels), make_table("branches", branches)


def left_out_bases(suite: Suite, board: Board, lines: Sequence[Line]) -> list[str]:
    """Return a note on base tasks that levels are not compared on, because some line did not run on every level of them."""
    if suite.axis is None:
        return []
    every = {task.base for task in suite.tasks}
    missing = {line.label: sorted(every - set(_shared_bases(suite, suite.axis, board.tasks(line)))) for line in lines}
    return [
        f"{label} by level of {suite.axis.name}: without {', '.join(bases)}, not run at every level"
        for label, bases in missing.items()
        if bases
    ]


def _shared_bases(suite: Suite, axis: Axis, ran: Sequence[str]) -> tuple[str, ...]:
    """Return the base tasks that are, with every level of the axis, among the tasks that ran; sorted."""
    wanted = {level.name for level in axis.levels}
    found: dict[str, set[str | None]] = {}
    for task in suite.tasks:
        if task.name in ran:
            found.setdefault(task.base, set()).add(task.level)
    return tuple(sorted(base for base, levels in found.items() if wanted <= levels))


def _curve(suite: Suite, axis: Axis, board: Board, line: Line) -> DegradationCurve | None:
    bases = _shared_bases(suite, axis, board.tasks(line))
    if not bases:
        return None
    names = {(task.base, task.level): task.name for task in suite.tasks}
    marks = board.support(line)
    levels, cubes = [], []
    for level in axis.levels:
        tasks = {names[base, level.name]: base for base in bases}
        inside = [marks[name] for name in tasks]
        levels.append(Level(level.name, level.factor, None if None in inside else all(inside)))
        cubes.append(_renamed(board.cube(line, "score", tasks), tasks))
    return degradation_curve(axis.name, levels, cubes, axis.home, generator())


def _renamed(cube: ScoreCube, bases: dict[str, str]) -> ScoreCube:
    """Return the cube with tasks named by their base, so that levels share them."""
    return ScoreCube(cube.values, tuple(bases[name] for name in cube.tasks), cube.seeds, cube.meta_seeds, axes=AXES)


def _level_rows(line: Line, curve: DegradationCurve) -> list[dict[str, object]]:
    return [
        {
            **line.columns,
            "level": level.name,
            "factor": float("nan") if level.factor is None else level.factor,
            "inside_support": level.inside_support,
            **columns_of("score", curve.score.at(i)),
            **columns_of("retention", curve.retention.at(i)),
        }
        for i, level in enumerate(curve.levels)
    ]


def _branch_rows(line: Line, curve: DegradationCurve) -> list[dict[str, object]]:
    return [
        {
            **line.columns,
            "direction": direction,
            **columns_of("s50", branch.s50),
            **columns_of("slope", branch.slope),
            **columns_of("area", branch.area),
            "falls_throughout": branch.falls_throughout,
        }
        for direction, branch in (("up", curve.up), ("down", curve.down))
        if branch is not None
    ]
