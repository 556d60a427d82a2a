"""Losses of AdamW at given budgets on the half of the held-out examples that scores, each set of runs computed once and stored.

Unlike `CurveKey` these keep the examples apart that decisions may look at, leave the task's cap away, evaluate at the budgets asked for and
nowhere else, and run several schedules at once.

Legend: E budgets, S schedules, R rates, K seeds, N = S R K runs, seeds fastest.
"""

import hashlib
import inspect
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import vmap

from metaopt import tasks
from metaopt.baselines import grid_schedules
from metaopt.baselines.code_version import code_version, meaningful_source
from metaopt.baselines.grid_schedules import GRID_SCHEDULES, ScheduleByNumber
from metaopt.baselines.optimizer_code import optimizer_code
from metaopt.baselines.runs import Curves
from metaopt.baselines.store import Store
from metaopt.cluster import Pool, Reason, WorkItem, WorkResult
from metaopt.errors import ConfigError, WorkerLostError
from metaopt.inner.step import BATCHES_AHEAD, fresh_carries, training_batches, training_step
from metaopt.learners import GradientLearner
from metaopt.learners.update_rules import get_rule
from metaopt.tasks import TaskSpec, halves
from metaopt.tasks.halves import SCORING, half_loss
from metaopt.tasks.number_shifts import is_shifted
from metaopt.tasks.task import Batch, Numbers, Params, Task, stack_tasks

__all__ = ["RATES", "BudgetRuns", "BudgetSetup", "budget_losses", "compute"]

_log = logging.getLogger(__name__)

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_RULE = "adamw"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BudgetRuns:
    """Runs of AdamW under every one of some schedules and rates with some seeds; everything that determines their losses.

    Attributes:
        spec: the task; its horizon is where schedules end.
        schedules: of `GRID_SCHEDULES`.
        rates: learning rates; everything else is AdamW's default.
        seeds: inner seeds.
        budgets: inner steps after which to evaluate, rising, 0 being the initialisation; runs end at the last one.
    """

    spec: TaskSpec
    schedules: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    budgets: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.budgets or self.budgets[0] < 0 or sorted(set(self.budgets)) != list(self.budgets):
            raise ConfigError(f"budgets must rise from 0 or more, got {self.budgets}")
        if unknown := [name for name in self.schedules if name not in GRID_SCHEDULES]:
            raise ConfigError(f"schedule {unknown[0]!r} is none of {', '.join(GRID_SCHEDULES)}")

    def to_json(self) -> str:
        """Return the canonical JSON text of the key, code versions included."""
        content: dict[str, Any] = {
            "half": SCORING,
            "task": asdict(self.spec),
            "optimizer": {"rule": _RULE, "options": get_rule(_RULE).hyperparameters},
            "schedules": self.schedules,
            "rates": self.rates,
            "seeds": self.seeds,
            "budgets": self.budgets,
            "code": [
                code_version(self.spec.family, is_shifted(self.spec.values)),
                optimizer_code(GradientLearner(get_rule(_RULE))),
                _own_code(),
            ],
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    def kept(self, curves: Curves) -> Curves:
        """Return what the store gives back for these curves."""
        return curves.stored()

    @property
    def work(self) -> int:
        """Inner steps of all runs together."""
        return self.budgets[-1] * len(self.schedules) * len(self.rates) * len(self.seeds)

    def shaped(self, curves: Curves) -> Array:
        """Return the losses [E, S, R, K] of curves."""
        return curves.heldout.reshape(len(self.budgets), len(self.schedules), len(self.rates), len(self.seeds))


def compute(runs: BudgetRuns) -> Curves:
    """Return the losses [E, N] of runs: normalised, without cap, not finite where they blew up; `train` is empty.

    A pure function of `runs` for one device type and thread count; all runs are one vectorised program.
    """
    count = len(runs.seeds)
    rates = torch.tensor(runs.rates).repeat_interleave(count).repeat(len(runs.schedules))
    numbers = torch.tensor([GRID_SCHEDULES.index(name) for name in runs.schedules])
    theta = {"lr": rates, "schedule": numbers.repeat_interleave(count * len(runs.rates))}
    learner, task = ScheduleByNumber(_RULE), tasks.build(runs.spec)
    stacked = stack_tasks([task] * len(rates))
    keys = torch.tensor(list(runs.seeds), dtype=torch.int64).repeat(len(runs.schedules) * len(runs.rates))
    step = training_step(learner, task.program, True, False)
    carry = fresh_carries(learner, theta, stacked, keys, True)
    last, losses = runs.budgets[-1], []
    ahead: Batch = {}
    for t in range(last + 1):
        if t in runs.budgets:
            losses.append(_scores(stacked, carry["params"], keys))
        if t < last:
            if t % BATCHES_AHEAD == 0:
                ahead = training_batches(stacked, keys, torch.full_like(keys, t), min(BATCHES_AHEAD, last - t))
            batch = {name: value[t % BATCHES_AHEAD] for name, value in ahead.items()}
            carry, _, _ = step(theta, stacked.numbers, stacked.shared, carry, batch)
    heldout = torch.stack(losses).numpy().astype(np.float64)
    diverged: NDArray[np.bool_] = np.any(~np.isfinite(heldout), axis=0)
    return Curves(np.array(runs.budgets, np.float64), heldout, np.zeros((0, len(rates))), diverged)


def budget_losses(wanted: Sequence[BudgetRuns], store: Store | None = None, pool: Pool | None = None) -> list[Array]:
    """Return the losses [E, S, R, K] of each set of runs; what the store lacks is computed, the longest first, and kept as it arrives.

    Args:
        wanted: sets of runs; equal ones are computed once.
        store: default: the bundled one and the user's cache, `$METAOPT_CACHE/baselines`.
        pool: of workers built from `BudgetSetup`; None for this process, with one thread. No loss depends on it.

    Raises:
        WorkerLostError: a set failed three times on the pool.
    """
    store = store or Store()
    found = {runs: kept for runs in wanted if (kept := store.get(runs)) is not None}
    missing = sorted(set(wanted) - found.keys(), key=lambda runs: (-runs.work, runs.to_json()))
    for runs, curves in _computed(missing, pool, store):
        found[runs] = runs.kept(curves)
    return [runs.shaped(found[runs]) for runs in wanted]


def _computed(missing: Sequence[BudgetRuns], pool: Pool | None, store: Store) -> Iterator[tuple[BudgetRuns, Curves]]:
    """Yield what is missing; each is in the store before the next one is looked at."""
    if pool is None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums depend on it
        try:
            for runs in missing:
                curves = compute(runs)
                _keep(store, runs, curves)
                yield runs, curves
        finally:
            torch.set_num_threads(threads)
        return

    def arrived(result: WorkResult) -> None:
        if result.error is None:
            _keep(store, result.item.payload, result.value)

    results = pool.run([WorkItem(0, i, 0, runs) for i, runs in enumerate(missing)], _again, arrived, anywhere=True)
    for runs, result in zip(missing, results, strict=True):
        if result.error is not None:
            raise WorkerLostError(f"baseline {_RULE} failed on task {runs.spec.hash}: {result.error.strip().splitlines()[-1]}")
        yield runs, result.value


def _keep(store: Store, runs: BudgetRuns, curves: Curves) -> None:
    """Keep curves; a full or forbidden folder costs their next computation, nothing else."""
    try:
        store.put(runs, curves)
    except OSError as error:
        _log.warning("curves cannot be kept in %s and will be computed again next time: %s", store.folders[-1], error)


def _again(item: WorkItem, reason: Reason) -> WorkItem:
    return replace(item, attempt=item.attempt + 1)


@dataclass(frozen=True)
class BudgetSetup:
    """Recipe of a worker that computes runs; it holds nothing between them."""

    def build(self) -> "BudgetWorker":
        """Return a fresh worker."""
        return BudgetWorker()


class BudgetWorker:
    """Turns `BudgetRuns` into `Curves`."""

    def handle(self, item: WorkItem) -> Curves:
        """Return the curves of the runs in `item.payload`."""
        return compute(item.payload)


def _scores(stacked: Task, params: Params, keys: torch.Tensor) -> torch.Tensor:
    """Return the losses [N] on the half that scores."""

    def one(numbers: Numbers, shared: Batch, params: Params, key: torch.Tensor) -> torch.Tensor:
        return half_loss(Task(stacked.program, numbers, shared), params, key, SCORING)

    with torch.no_grad():
        losses: torch.Tensor = vmap(one, in_dims=(0, None, 0, 0))(stacked.numbers, stacked.shared, params, keys)
    return losses


@cache
def _own_code() -> str:
    """Return sixteen hex digits for the code of this module and of those that it does not share with other baselines."""
    text = "\f".join(meaningful_source(inspect.getsource(module)) for module in (sys.modules[__name__], grid_schedules, halves))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
