"""The table of planning horizons: does a learner that was trained to look further ahead end better?

A rule that is trained on short runs, or with meta-gradients of short windows, learns to be greedy, and what is best for the next steps
is not best for a long run. The planning horizon of a learner is what its card says (`support.planning_horizon`) or its candidate.

Source: Wu et al., 2018, "Understanding short-horizon bias in stochastic meta-optimization".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.provenance import rule_name
from metaopt.evaluation.statistics.aggregates import interquartile_mean
from metaopt.evaluation.statistics.resampling import bootstrap
from metaopt.evaluation.support import planning_horizon
from metaopt.evaluation.tables.lines import Board, Line, columns_of, generator
from metaopt.evaluation.tables.results import make_table

__all__ = ["mixed_horizons", "planning_table"]


@dataclass(frozen=True)
class _Planner:
    """A line with its method and how far it planned."""

    line: Line
    method: str
    steps: int


def planning_table(board: Board, candidates: Sequence[Candidate], horizons: Mapping[str, int]) -> pd.DataFrame:
    """Return the table `planning`; empty unless lines with a planning horizon have at least two different ones.

    Methods stand in the order of their first learner, the learners of a method by planning horizon.

    Args:
        board: rows of all lines.
        candidates: learners; what has no row on the board has none here.
        horizons: inner steps of each task, by name.
    """
    planners = [one for one in _planners(candidates) if one.line in board.rows]
    if len({one.steps for one in planners}) < 2:
        return make_table("planning", [])
    order = list(dict.fromkeys(one.method for one in planners))
    planners.sort(key=lambda one: (order.index(one.method), one.steps))
    return make_table("planning", (row for one in planners for row in _rows(board, one, horizons)))


def mixed_horizons(candidates: Sequence[Candidate]) -> list[str]:
    """Return a note on each learner whose meta-seeds planned for different horizons, so that it has no place in the table."""
    told = {name: sorted(steps - {None}, key=int) for name, steps in _horizons(candidates).items() if len(steps) > 1}  # type: ignore[arg-type]
    return [
        f"{name}: its meta-seeds planned for {' and '.join(map(str, steps))} inner steps{' or an unknown number' * (len(steps) == 1)}, so "
        "that it is not among the planning horizons"
        for name, steps in told.items()
    ]


def _horizons(candidates: Sequence[Candidate]) -> dict[str, set[int | None]]:
    """Return learner -> the planning horizons of its meta-seeds; None among them is unknown."""
    found: dict[str, set[int | None]] = {}
    for one in candidates:
        found.setdefault(one.name, set()).add(planning_horizon(one.card) if one.planning_horizon is None else one.planning_horizon)
    return found


def _planners(candidates: Sequence[Candidate]) -> list[_Planner]:
    horizons, methods = _horizons(candidates), _methods(candidates)
    known = {name: steps for name, (steps, *others) in horizons.items() if steps is not None and not others}
    return [_Planner(Line(name, "learner", 1), methods[name], steps) for name, steps in known.items()]


def _methods(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Return learner -> its method: what it says, or the name of its rule; a number tells apart equal names of different definitions."""
    labels: dict[str, str] = {}
    found: dict[str, str] = {}
    for one in candidates:
        key = f"method {one.method}" if one.method else one.definition
        if key not in labels:
            name = one.method or rule_name(one.learner)
            twins = sum(label.split("#")[0] == name for label in labels.values())
            labels[key] = f"{name}#{twins + 1}" if twins else name
        found.setdefault(one.name, labels[key])
    return found


def _rows(board: Board, one: _Planner, horizons: Mapping[str, int]) -> list[dict[str, object]]:
    """Return the row of all tasks, then one for each of their horizons."""
    every = board.tasks(one.line)
    groups = {float("nan"): list(every)} | {
        float(steps): [task for task in every if horizons[task] == steps] for steps in _levels(every, horizons)
    }
    return [
        {
            "method": one.method,
            "learner": one.line.learner,
            "planning_steps": one.steps,
            "horizon_steps": steps,
            "tasks": len(tasks),
            **columns_of("score", bootstrap([board.cube(one.line, "score", tasks)], interquartile_mean, generator())),
        }
        for steps, tasks in groups.items()
    ]


def _levels(tasks: Sequence[str], horizons: Mapping[str, int]) -> list[int]:
    return sorted({horizons[task] for task in tasks})
