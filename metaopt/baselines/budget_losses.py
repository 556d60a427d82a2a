"""Look up the losses of baselines at budgets, and compute and keep those that nobody has computed."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from metaopt.baselines import budget_runs
from metaopt.baselines.budget_runs import RULE, BudgetRuns
from metaopt.baselines.runs import Curves
from metaopt.baselines.store import Store
from metaopt.cluster import Pool, Reason, WorkItem, WorkResult
from metaopt.errors import WorkerLostError

__all__ = ["BudgetSetup", "budget_losses"]

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]


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
                curves = budget_runs.compute(runs)
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
            raise WorkerLostError(f"baseline {RULE} failed on task {runs.spec.hash}: {result.error.strip().splitlines()[-1]}")
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
        return budget_runs.compute(item.payload)
