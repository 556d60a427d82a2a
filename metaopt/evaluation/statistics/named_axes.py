"""The data cube of an evaluation, with named axes: learner-run (meta-seed) i, task j, inner seed k.

Statistics over a bare array go wrong in silence when two axes are swapped, or when the runs that are missing are those that failed. A cube
spells its axes out, keeps tasks sorted, and knows no missing run.

Legend: M meta-seeds (independent meta-trainings), J tasks, K inner seeds.

Source: Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical precipice" (the matrix of runs and tasks).
Differs: three axes instead of two, because the runs of one meta-training are no replications of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AXES", "ScoreCube", "cube_from_rows"]

AXES = ("meta_seed", "task", "seed")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreCube:
    """Scores with named axes [M, J, K]; tasks are kept sorted, so the order in which they came changes nothing.

    Attributes:
        values: scores, float64. A failed run holds the worst score; nothing is missing.
        tasks: the J task names, unique.
        seeds: the K inner seeds, unique; methods that are compared share them.
        meta_seeds: the M meta-seeds, unique; default 0 to M - 1. What was never meta-trained has one.
        axes: must be `AXES`, spelled out by the caller.
        times: values are times to a target, and `inf` is one that was missed; otherwise all values must be finite.

    Raises:
        ValueError: swapped or misnamed axes, shapes that do not fit the names, names that are there twice, values that are not finite.
    """

    values: Array
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    meta_seeds: tuple[int, ...] = ()
    axes: tuple[str, ...] = field(kw_only=True)
    times: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.axes != AXES:
            raise ValueError(f"axes must be {AXES} in this order, got {self.axes}: transpose the values first")
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 3 or values.shape[1:] != (len(self.tasks), len(self.seeds)) or values.size == 0:
            raise ValueError(f"values must be [M, {len(self.tasks)} tasks, {len(self.seeds)} seeds], got shape {values.shape}")
        meta_seeds = self.meta_seeds or tuple(range(values.shape[0]))
        if len(meta_seeds) != values.shape[0]:
            raise ValueError(f"values must be [{len(meta_seeds)} meta-seeds, J, K], got shape {values.shape}")
        for name, labels in (("tasks", self.tasks), ("seeds", self.seeds), ("meta_seeds", meta_seeds)):
            if len(set(labels)) < len(labels):
                raise ValueError(f"{name} must be unique, got {labels}")
        bad = int((np.isnan(values) | (values == -np.inf) if self.times else ~np.isfinite(values)).sum())
        if bad:
            raise ValueError(f"values must be finite (give failed runs the worst score), got {bad} that are not")
        order = np.argsort(self.tasks)
        object.__setattr__(self, "values", values[:, order])
        object.__setattr__(self, "tasks", tuple(self.tasks[i] for i in order))
        object.__setattr__(self, "meta_seeds", meta_seeds)

    def negated(self) -> "ScoreCube":
        """Return the cube with the sign of every score changed: losses become scores where higher is better.

        Raises:
            ValueError: it holds times with a miss.
        """
        return replace(self, values=-self.values)


def cube_from_rows(
    rows: Iterable[Mapping[str, Any]],
    column: str,
    worst: float | Mapping[str, float],
    *,
    tasks: Sequence[str],
    seeds: Sequence[int],
    meta_seeds: Sequence[int],
    times: bool = False,
) -> tuple[ScoreCube, NDArray[np.bool_]]:
    """Return one learner's rows as a cube, and where a score was put in because there was none.

    A run without a row, or whose score is missing or not finite, is a failure: it gets the worst score and is never dropped.

    Args:
        rows: one mapping a run with `meta_seed`, `task`, `seed` and the column, in any order.
        column: which score.
        worst: what a failed run gets; one number, or one for each task.
        tasks, seeds, meta_seeds: all that were planned: what decides whether a row is missing.
        times: see `ScoreCube`; `worst` may then be `inf`.

    Returns:
        The cube, and a mask [M, J, K] in the cube's order, True where `worst` stands in.

    Raises:
        ValueError: a row that was not planned or is there twice.
    """
    names = sorted(tasks)
    place = {
        (i, j, k): (at_meta, at_task, at_seed)
        for at_meta, i in enumerate(meta_seeds)
        for at_task, j in enumerate(names)
        for at_seed, k in enumerate(seeds)
    }
    values = np.full((len(meta_seeds), len(names), len(seeds)), np.nan)
    seen = set()
    for row in rows:
        run = (row["meta_seed"], row["task"], row["seed"])
        if run not in place:
            raise ValueError(f"row {run} (meta_seed, task, seed) was not planned: the plan is {meta_seeds} x {names} x {seeds}")
        if run in seen:
            raise ValueError(f"row {run} (meta_seed, task, seed) is there twice")
        seen.add(run)
        values[place[run]] = np.nan if row[column] is None else row[column]
    missing: NDArray[np.bool_] = np.isnan(values) if times else ~np.isfinite(values)
    worst_J = np.array([worst[name] if isinstance(worst, Mapping) else worst for name in names], dtype=np.float64)
    values = np.where(missing, worst_J[:, None], values)
    return ScoreCube(values, tuple(names), tuple(seeds), tuple(meta_seeds), axes=AXES, times=times), missing
