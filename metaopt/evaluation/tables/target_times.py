"""Times to the targets of a suite by line, and the benchmark scores that are made of them.

Times are inner steps. A task without a target (see `yardsticks.task_target`) takes no part.

Legend: N lines, W workloads (tasks with a target).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaopt.evaluation.scores.algoperf import algoperf_score, geometric_mean_speed_up, reference_fixed_score
from metaopt.evaluation.scores.targets import task_times
from metaopt.evaluation.tables.lines import Board, Line

__all__ = ["TargetTimes"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TargetTimes:
    """Times to the targets, by line.

    Attributes:
        board: rows of all lines.
        horizons: task -> its steps, for every task that has a target.
        field: lines that AlgoPerf's score compares.
        frozen: the baseline that the other scores divide by; it ran on every task.
    """

    board: Board
    horizons: Mapping[str, int]
    field: tuple[Line, ...]
    frozen: Line

    def tasks(self, line: Line) -> tuple[str, ...]:
        """Return the tasks of a line that have a target."""
        return tuple(name for name in self.board.tasks(line) if name in self.horizons)

    def headline(self, line: Line) -> dict[str, float]:
        """Return the columns `algoperf`, `algoperf_fixed` and `geometric_speed_up` of a line, over its own tasks; NaN if it has none."""
        tasks = self.tasks(line)
        if not tasks:
            return dict.fromkeys(("algoperf", "algoperf_fixed", "geometric_speed_up"), math.nan)
        ours, frozen = self._medians(line, tasks), self._medians(self.frozen, tasks)
        budgets = np.array([self.horizons[name] for name in tasks], dtype=np.float64)
        against = math.nan
        if line in self.field:
            others = [one for one in self.field if one != line]
            against = float(algoperf_score(np.stack([ours, *(self._medians(one, tasks) for one in others)]))[0])
        return {
            "algoperf": against,
            "algoperf_fixed": float(reference_fixed_score(ours, frozen)),
            "geometric_speed_up": float(geometric_mean_speed_up(ours, frozen, budgets)),
        }

    def _medians(self, line: Line, tasks: Sequence[str]) -> Array:
        """Return the median time of a line on each task [W]; a task that it cannot run on is one that it misses."""
        mine = set(self.tasks(line))
        shared = [name for name in tasks if name in mine]
        found = {}
        if shared:
            cube = self.board.cube(line, "steps_to_target", shared, times=True)
            found = dict(zip(cube.tasks, task_times(cube.values), strict=True))
        return np.array([found.get(name, math.inf) for name in tasks])
