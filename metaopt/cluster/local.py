"""A pool of one worker inside this process: the same protocol, budgets and bytes as on a cluster, without any process."""

import copy
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from metaopt.cluster.ledger import Ledger
from metaopt.cluster.pool import Arrived, PoolStats, Recover, Setup, Shared, Source, Worker, WorkItem, WorkResult, answer, check_size

__all__ = ["LocalPool"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Held(Generic[T]):
    value: T

    def get(self) -> T:
        return self.value

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class _Isolated:
    """Passes copies in and out, as a message would."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def handle(self, item: WorkItem) -> Any:
        return copy.deepcopy(self._worker.handle(copy.deepcopy(item)))


class LocalPool:
    """Runs items one after the other in this process, `threads` torch threads wide.

    Payloads, values and shared objects are copied, as they would be on their way to another process: nobody sees another's later writes.

    Args:
        setup: recipe of the worker, built at once.
        threads: torch threads while an item is handled; the caller's number is restored after it.
    """

    workers = 1

    def __init__(self, setup: Setup, threads: int = 1) -> None:
        self.stats = PoolStats()
        self._worker = _Isolated(setup.build())
        self._threads = threads

    def share(self, value: T) -> Shared[T]:
        """Return a handle to a copy of `value`."""
        return _Held(copy.deepcopy(value))

    def run(self, items: Sequence[WorkItem], recover: Recover, arrived: Arrived | None = None, anywhere: bool = False) -> list[WorkResult]:
        """Return one result an item, sorted by `work_id`; see `Pool.run`."""
        ledger = Ledger(items, recover, self.stats, arrived)
        queue = deque(items if anywhere else sorted(items, key=lambda item: item.work_id))
        while queue:
            item = queue.popleft()
            check_size(item.payload, f"work item {item.work_id} of outer step {item.outer_step}")
            again = ledger.settle(item, answer(self._worker, item, self._threads), worker=0)
            if again is not None:
                queue.appendleft(again)
        return ledger.results()

    def stream(self, source: Source, recover: Recover) -> Iterator[WorkResult]:
        """Yield results one after the other; here an item is issued when its result is asked for. See `Pool.stream`."""
        while True:
            yield from self.run([source()], recover)

    def balance(self, costs: Mapping[int, float], groups: Sequence[Sequence[int]] = ()) -> None:
        """Nothing to spread over one worker."""

    def close(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
