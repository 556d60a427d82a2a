"""Lines of a report, and their rows as cubes that statistics take.

A line is a learner, with all its meta-seeds, or a baseline at a number of trials. Lines may differ in tasks, because not every learner can
run on every task; what compares two lines gives both the same ones.
"""

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from metaopt.evaluation.statistics.named_axes import AXES, ScoreCube
from metaopt.evaluation.statistics.resampling import Interval
from metaopt.seeds import stable_hash

__all__ = ["Board", "Line", "columns_of", "generator", "only", "score_cube"]


@dataclass(frozen=True)
class Line:
    """One line of a report.

    Attributes:
        learner: name.
        kind: `learner` or `baseline`.
        trials: of tuning; 1 for a learner.
    """

    learner: str
    kind: str
    trials: int

    @property
    def label(self) -> str:
        """Short text for a reader."""
        return self.learner if self.kind == "learner" else f"{self.learner} K={self.trials}"

    @property
    def columns(self) -> dict[str, object]:
        """The columns that name the line in a table."""
        return {"learner": self.learner, "kind": self.kind, "trials": self.trials}


@dataclass(frozen=True, eq=False)
class Board:
    """The rows of every line.

    Attributes:
        rows: line -> its rows, with the columns of `results.COLUMNS["scores"]`.
    """

    rows: dict[Line, pd.DataFrame]
    _cubes: dict[tuple[Line, str, bool], ScoreCube] = field(default_factory=dict, init=False, repr=False)

    @staticmethod
    def of(scores: pd.DataFrame) -> "Board":
        """Return the board of all lines that a table of runs holds."""
        groups = scores.groupby(["learner", "kind", "trials"], sort=False)
        return Board({Line(str(learner), str(kind), int(trials)): rows for (learner, kind, trials), rows in groups})

    def tasks(self, line: Line) -> tuple[str, ...]:
        """Return the names of the tasks that a line ran on, sorted."""
        return tuple(sorted(self.rows[line].task.unique()))

    def cube(self, line: Line, column: str, tasks: Collection[str] | None = None, *, times: bool = False) -> ScoreCube:
        """Return a line's scores [meta-seeds, tasks, seeds] on its tasks, or on some of them; see `score_cube`."""
        key = (line, column, times)
        if key not in self._cubes:
            self._cubes[key] = score_cube(self.rows[line], column, times=times)
        return self._cubes[key] if tasks is None else only(self._cubes[key], tasks)

    def support(self, line: Line) -> dict[str, bool | None]:
        """Return by task whether all meta-seeds of a line were trained on tasks like it; None if that is not known of all of them."""
        marks: dict[str, list[bool | None]] = {}
        for task, mark in self.rows[line][["task", "inside_support"]].itertuples(index=False, name=None):
            marks.setdefault(task, []).append(mark)
        return {task: None if None in found else all(found) for task, found in marks.items()}


def score_cube(rows: pd.DataFrame, column: str, *, times: bool = False) -> ScoreCube:
    """Return one line's scores as a cube [meta-seeds, tasks, seeds]; with `times`, NaN is a miss and becomes `inf`.

    Raises:
        ValueError: a planned run is missing or there twice, or its score is not finite.
    """
    names = ["meta_seed", "task", "seed"]
    ordered = rows.sort_values(names)
    meta_seeds, tasks, seeds = (sorted(ordered[name].unique().tolist()) for name in names)
    planned = itertools.product(meta_seeds, tasks, seeds)
    if list(planned) != list(ordered[names].itertuples(index=False, name=None)):
        raise ValueError(f"every run of {len(meta_seeds)} meta-seeds, {len(tasks)} tasks, {len(seeds)} seeds must be there once")
    values = ordered[column].to_numpy(np.float64).reshape(len(meta_seeds), len(tasks), len(seeds))
    if times:
        values = np.where(np.isnan(values), np.inf, values)
    return ScoreCube(values, tuple(tasks), tuple(seeds), tuple(meta_seeds), axes=AXES, times=times)


def only(cube: ScoreCube, tasks: Iterable[str]) -> ScoreCube:
    """Return the cube of some of its tasks.

    Raises:
        ValueError: a task that the cube lacks.
    """
    chosen = sorted(tasks)
    at = [cube.tasks.index(name) for name in chosen]
    return ScoreCube(cube.values[:, at], tuple(chosen), cube.seeds, cube.meta_seeds, axes=AXES, times=cube.times)


def generator() -> np.random.Generator:
    """Return a fresh generator; equal ones for all lines, so that equal scores have equal intervals."""
    return np.random.default_rng(stable_hash("bootstrap"))


def columns_of(name: str, interval: Interval) -> dict[str, float]:
    """Return an interval as three columns; an undefined value has no ends."""
    low, high = (interval.low, interval.high) if not np.isnan(interval.value) else (np.nan, np.nan)
    return {name: interval.value, f"{name}_low": low, f"{name}_high": high}
