"""What a policy's runs are measured by: tasks that can be scored, and AdamW's grid, budgets and tuned best on the same inner seeds.

Legend: B budgets, S = 7 schedules, R = 5 rates, K seeds, N = S R grid runs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metaopt import tasks
from metaopt.baselines.budget_losses import budget_losses
from metaopt.baselines.budget_runs import RATES, BudgetRuns
from metaopt.baselines.comparison import Budgets, cosine_budgets, default_budgets, grids
from metaopt.baselines.grid_schedules import GRID_SCHEDULES
from metaopt.baselines.reference import DEFAULT_RATE, Against, Reference, degenerate, references, score
from metaopt.baselines.store import Store
from metaopt.baselines.tuning import evaluation_seeds
from metaopt.cluster import Pool
from metaopt.evaluation.policies.task_sets import TaskSet
from metaopt.tasks import TaskSpec
from metaopt_envs.settings import Bucket

__all__ = ["DEFAULT", "GRID", "BucketRuns", "Rivals", "bucket_runs", "rivals"]

GRID = tuple(f"{schedule} {rate:g}" for schedule in GRID_SCHEDULES for rate in RATES)
DEFAULT = f"constant {DEFAULT_RATE:g}"

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BucketRuns:
    """The tasks of a bucket, and the runs on them: run i works on task i % (number of tasks).

    Attributes:
        bucket: which runs.
        specs: the tasks.
        found: their references; a reward needs one whose curve can be inverted.
        caps: normalised loss above which a run of each has diverged; that at initialisation where this is larger.
        seeds: inner seeds of each task [tasks][K].
        against: what rewards compare with.
    """

    bucket: Bucket
    specs: tuple[TaskSpec, ...]
    found: tuple[Reference, ...]
    caps: tuple[float, ...]
    seeds: tuple[tuple[int, ...], ...]
    against: Against

    @property
    def run_seeds(self) -> tuple[int, ...]:
        """Inner seeds of all runs, tasks fastest."""
        return tuple(seed for row in zip(*self.seeds, strict=True) for seed in row)

    def rewards(self, place: int, losses: Array) -> Array:
        """Return the rewards of final losses [K] of a task; NaN where its reference cannot be inverted."""
        one = self.found[place]
        return score(losses, one, self.against) if one.curve(self.against).degenerate is None else np.full(len(losses), np.nan)

    def by_task(self, losses: Array) -> Array:
        """Return the losses [tasks, K] of runs [tasks K]."""
        return losses.reshape(-1, len(self.specs)).T


@dataclass(frozen=True, eq=False)
class Rivals:
    """Final losses of AdamW on one task, on the seeds of the policy's runs.

    Attributes:
        grid: [N, K] in the order of `GRID`; None where it was not asked for.
        cosine: of a cosine to 0 at each rate [R, K].
        default: at a constant 1e-3 [K].
        cosine_budgets, default_budgets: with other budgets; None where they were not asked for.
    """

    grid: Array | None
    cosine: Array
    default: Array
    cosine_budgets: Budgets | None = None
    default_budgets: Budgets | None = None


def bucket_runs(
    task_set: TaskSet, seeds: int, against: Against, store: Store | None, pool: Pool | None
) -> tuple[list[BucketRuns], Counter[str]]:
    """Return the runs on each bucket of a set, and how many tasks cannot be scored, by reason.

    Raises:
        WorkerLostError: a reference could not be computed.
    """
    wanted = [tuple(bucket.specs()) for bucket in task_set.buckets]
    every = references([spec for specs in wanted for spec in specs], store, pool)
    found, runs = iter(every), []
    for bucket, specs in zip(task_set.buckets, wanted, strict=True):
        own = tuple(next(found) for _ in specs)
        caps = tuple(max(tasks.build(spec).program.cap, one.start) for spec, one in zip(specs, own, strict=True))
        runs.append(BucketRuns(bucket, specs, own, caps, tuple(evaluation_seeds(spec, 0, seeds) for spec in specs), against))
    return runs, degenerate(every, against)


def rivals(specs: Sequence[TaskSpec], seeds: int, full: bool, store: Store | None, pool: Pool | None) -> list[Rivals]:
    """Return the rivals on each task; runs that the store lacks are computed and kept in it.

    Raises:
        WorkerLostError: runs of a task failed three times.
    """
    if not full:
        wanted = [BudgetRuns(spec, ("constant", "cosine"), RATES, evaluation_seeds(spec, 0, seeds), (spec.horizon,)) for spec in specs]
        finals = [losses[-1] for losses in budget_losses(wanted, store, pool)]
        return [Rivals(None, one[1], one[0, RATES.index(DEFAULT_RATE)]) for one in finals]
    whole = [one[..., :seeds] for one in grids(specs, store, pool)]
    return [
        Rivals(
            grid.reshape(len(GRID), seeds),
            grid[GRID_SCHEDULES.index("cosine")],
            grid[GRID_SCHEDULES.index("constant"), RATES.index(DEFAULT_RATE)],
            *(replace(budgets, losses=budgets.losses[..., :seeds]) for budgets in (cosine, default)),
        )
        for grid, cosine, default in zip(whole, cosine_budgets(specs, store, pool), default_budgets(specs, store, pool), strict=True)
    ]
