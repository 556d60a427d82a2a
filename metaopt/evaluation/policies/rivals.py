"""What a policy's runs are measured by: tasks that can be scored, and AdamW's grid, budgets and tuned best on the same inner seeds.

Legend: B budgets, S = 7 schedules, R = 5 rates, H = 2 higher ones, K seeds, N = S R grid runs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metaopt import tasks
from metaopt.baselines.budget_losses import budget_losses
from metaopt.baselines.budget_runs import RATES, BudgetRuns
from metaopt.baselines.comparison import (
    HIGHER_RATES,
    Budgets,
    cosine_budgets,
    cosine_runs,
    default_budgets,
    default_runs,
    grid_runs,
    grids,
)
from metaopt.baselines.grid_schedules import GRID_SCHEDULES
from metaopt.baselines.reference import AGAINST, DEFAULT_RATE, Against, Reference, degenerate, reference_runs, references, score
from metaopt.baselines.store import Store
from metaopt.baselines.tuning import evaluation_seeds
from metaopt.cluster import Pool
from metaopt.evaluation.policies.task_sets import TaskSet
from metaopt.tasks import TaskSpec
from metaopt_envs.settings import Bucket

__all__ = ["DEFAULT", "GRID", "WIDE_RATES", "BucketRuns", "Rivals", "bucket_runs", "rivals", "wanted_runs"]

GRID = tuple(f"{schedule} {rate:g}" for schedule in GRID_SCHEDULES for rate in RATES)
DEFAULT = f"constant {DEFAULT_RATE:g}"
WIDE_RATES = RATES + HIGHER_RATES

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
    """

    bucket: Bucket
    specs: tuple[TaskSpec, ...]
    found: tuple[Reference, ...]
    caps: tuple[float, ...]
    seeds: tuple[tuple[int, ...], ...]

    @property
    def run_seeds(self) -> tuple[int, ...]:
        """Inner seeds of all runs, tasks fastest."""
        return tuple(seed for row in zip(*self.seeds, strict=True) for seed in row)

    def rewards(self, place: int, losses: Array, against: Against) -> Array:
        """Return the rewards of final losses [K] of a task; NaN where its reference cannot be inverted."""
        one = self.found[place]
        return score(losses, one, against) if one.curve(against).degenerate is None else np.full(len(losses), np.nan)

    def by_task(self, losses: Array) -> Array:
        """Return the losses [tasks, K] of runs [tasks K]."""
        return losses.reshape(-1, len(self.specs)).T


@dataclass(frozen=True, eq=False)
class Rivals:
    """Final losses of AdamW on one task, on the seeds of the policy's runs.

    Attributes:
        grid: [N, K] in the order of `GRID`; None where it was not asked for.
        cosine: of a cosine to 0 at each rate [R, K].
        wide: of the same at each of `WIDE_RATES` [R + H, K].
        default: at a constant 1e-3 [K].
        cosine_budgets, wide_budgets, default_budgets: with other budgets; None where they were not asked for.
    """

    grid: Array | None
    cosine: Array
    wide: Array
    default: Array
    cosine_budgets: Budgets | None = None
    wide_budgets: Budgets | None = None
    default_budgets: Budgets | None = None


def bucket_runs(
    task_set: TaskSet, seeds: int, store: Store | None, pool: Pool | None
) -> tuple[list[BucketRuns], dict[Against, Counter[str]]]:
    """Return the runs on each bucket of a set, and how many tasks have no reward against each baseline, by reason.

    Raises:
        WorkerLostError: a reference could not be computed.
    """
    wanted = [tuple(bucket.specs()) for bucket in task_set.buckets]
    every = references([spec for specs in wanted for spec in specs], store, pool)
    found, runs = iter(every), []
    for bucket, specs in zip(task_set.buckets, wanted, strict=True):
        own = tuple(next(found) for _ in specs)
        caps = tuple(max(tasks.build(spec).program.cap, one.start) for spec, one in zip(specs, own, strict=True))
        runs.append(BucketRuns(bucket, specs, own, caps, tuple(evaluation_seeds(spec, 0, seeds) for spec in specs)))
    return runs, {against: degenerate(every, against) for against in AGAINST}


def rivals(specs: Sequence[TaskSpec], seeds: int, full: bool, store: Store | None, pool: Pool | None) -> list[Rivals]:
    """Return the rivals on each task; runs that the store lacks are computed and kept in it.

    Raises:
        WorkerLostError: runs of a task failed three times.
    """
    if not full:
        losses = iter(budget_losses([runs for spec in specs for runs in _light_runs(spec, seeds)], store, pool))
        return [_light(next(losses)[-1], next(losses)[-1]) for _ in specs]
    found = []
    cosines, higher_cosines = (cosine_budgets(specs, store, pool, rates) for rates in (RATES, HIGHER_RATES))
    every = zip(grids(specs, store, pool), cosines, higher_cosines, default_budgets(specs, store, pool), strict=True)
    for grid, cosine, higher, default in every:
        mine = grid[..., :seeds]
        low, high, slow = (replace(budgets, losses=budgets.losses[..., :seeds]) for budgets in (cosine, higher, default))
        wide = replace(low, losses=np.concatenate([low.losses, high.losses], axis=1))
        five = mine[GRID_SCHEDULES.index("cosine")]
        seven = np.concatenate([five, high.losses[high.fractions.tolist().index(1.0)]])
        constant = mine[GRID_SCHEDULES.index("constant"), RATES.index(DEFAULT_RATE)]
        found.append(Rivals(mine.reshape(len(GRID), seeds), five, seven, constant, low, wide, slow))
    return found


def wanted_runs(task_set: TaskSet, seeds: int) -> list[BudgetRuns]:
    """Return all runs of baselines that an evaluation on a set needs.

    Raises:
        ConfigError: a horizon below 8.
    """
    wanted = []
    for spec in (spec for bucket in task_set.buckets for spec in bucket.specs()):
        wanted.append(reference_runs(spec))
        if task_set.full:
            wanted += [*grid_runs(spec), *cosine_runs(spec), *cosine_runs(spec, HIGHER_RATES), default_runs(spec)]
        else:
            wanted += _light_runs(spec, seeds)
    return wanted


def _light_runs(spec: TaskSpec, seeds: int) -> list[BudgetRuns]:
    """Return the constant rates and cosines of the horizon, and the cosines at higher rates."""
    own = evaluation_seeds(spec, 0, seeds)
    pairs: tuple[tuple[tuple[str, ...], tuple[float, ...]], ...] = ((("constant", "cosine"), RATES), (("cosine",), HIGHER_RATES))
    return [BudgetRuns(spec, schedules, rates, own, (spec.horizon,)) for schedules, rates in pairs]


def _light(both: Array, higher: Array) -> Rivals:
    return Rivals(None, both[1], np.concatenate([both[1], higher[0]]), both[0, RATES.index(DEFAULT_RATE)])
