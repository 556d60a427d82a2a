"""Decides what becomes of every item and every worker: attempts, duplicates, quarantine, restarts. Knows nothing about processes."""

import time
from collections import deque
from collections.abc import Callable, Sequence

from metaopt.cluster.pool import Arrived, PoolStats, Reason, Recover, Reply, WorkItem, WorkResult
from metaopt.errors import WorkerLostError

__all__ = ["Ledger", "RestartBudget"]

MAX_ATTEMPTS = 3
MAX_RESTARTS = 5
RESTART_WINDOW_S = 600.0


class Ledger:
    """The books of one `Pool.run`: each item is open under one identity at a time, and closed once.

    Attempts that failed (worker lost, exception) and answers `StateMissing` have a budget of 3 each: the second kind costs no computing,
    and must not use up the attempts of an item whose worker was lost by no fault of its own.
    """

    def __init__(self, items: Sequence[WorkItem], recover: Recover, stats: PoolStats, arrived: Arrived | None = None) -> None:
        self._open = {item.work_id: item for item in items}
        if len(self._open) != len(items):
            raise ValueError(f"work_id must be unique in one run, got {sorted(item.work_id for item in items)}")
        self._recover = recover
        self._arrived = arrived
        self._stats = stats
        self._closed: dict[int, WorkResult] = {}
        self._spent: dict[tuple[int, bool], int] = {}
        self._errors: dict[int, list[str]] = {}
        stats.issued += len(items)

    @property
    def complete(self) -> bool:
        """Whether every item has its result."""
        return not self._open

    def results(self) -> list[WorkResult]:
        """Return the results so far, sorted by `work_id`."""
        return [self._closed[work_id] for work_id in sorted(self._closed)]

    def settle(self, item: WorkItem, reply: Reply, worker: int) -> WorkItem | None:
        """Enter a worker's reply; return the item to issue again, or None when there is nothing more to do for it."""
        if reply.kind == "value":
            if self._is_open(item):
                self._close(WorkResult(item, reply.content, None, reply.seconds, worker))
            return None
        return self._retry(item, reply.kind, str(reply.content), reply.seconds, worker)

    def lose(self, item: WorkItem, worker: int, cause: str) -> WorkItem | None:
        """Enter that `worker` died with `item` in its hands; return the item to issue again, or None."""
        return self._retry(item, "lost", f"worker {worker} was lost: {cause}", 0.0, worker)

    def _is_open(self, item: WorkItem) -> bool:
        current = self._open.get(item.work_id)
        if current is not None and current.identity == item.identity:
            return True
        self._stats.duplicates += 1
        return False

    def _retry(self, item: WorkItem, reason: Reason, error: str, seconds: float, worker: int) -> WorkItem | None:
        if not self._is_open(item):
            return None
        errors = self._errors.setdefault(item.work_id, [])
        errors.append(f"attempt {item.attempt}: {reason}: {error.strip()}")
        account = (item.work_id, reason == "state_missing")
        self._spent[account] = self._spent.get(account, 0) + 1
        again = self._recover(item, reason) if self._spent[account] < MAX_ATTEMPTS else None
        if again is None:
            self._stats.quarantined += 1
            self._close(WorkResult(item, None, "\n".join(errors), seconds, worker))
            return None
        if again.identity != (item.outer_step, item.work_id, item.attempt + 1):
            raise ValueError(f"recover must return the next attempt of {item.identity}, got {again.identity}")
        self._stats.reissued += 1
        self._open[item.work_id] = again
        return again

    def _close(self, result: WorkResult) -> None:
        del self._open[result.item.work_id]
        self._closed[result.item.work_id] = result
        if self._arrived is not None:
            self._arrived(result)


class RestartBudget:
    """How often one worker may be re-created: 5 times in 10 minutes, each wait twice the one before.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._restarts: deque[float] = deque()

    def spend(self, worker: int, cause: str) -> float:
        """Enter one more loss of `worker`; return the time on `clock` from which it may be re-created (first loss: now).

        Raises:
            WorkerLostError: the budget is spent.
        """
        now = self._clock()
        while self._restarts and now - self._restarts[0] > RESTART_WINDOW_S:
            self._restarts.popleft()
        if len(self._restarts) == MAX_RESTARTS:
            raise WorkerLostError(
                f"worker {worker} was lost {MAX_RESTARTS + 1} times in {RESTART_WINDOW_S / 60:.0f} minutes, last: {cause};"
                " look at its memory and its log, then continue with --resume"
            )
        wait = 0.0 if not self._restarts else 0.5 * 2.0 ** (len(self._restarts) - 1)
        self._restarts.append(now)
        return now + wait
