"""A stream of items through the actors of a Ray pool. Knows the pool's slots, and Ray only through the pool.

Each actor gets a second call while it answers the first, so that it never waits for the driver. Calls of one actor are answered in order:
of those that die with it, the oldest one was at work, and the others have not begun.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaopt.cluster.ledger import Ledger
from metaopt.cluster.pool import Recover, Source, WorkItem, WorkResult, check_size

if TYPE_CHECKING:
    from metaopt.cluster.ray_pool import RayPool, Slot

__all__ = ["stream"]

_CALLS = 2  # of one actor at a time


@dataclass(frozen=True)
class _Call:
    """An item at an actor; each has books of its own, because a stream has no end at which they could be closed."""

    slot: "Slot"
    item: WorkItem
    ledger: Ledger


def stream(pool: "RayPool", source: Source, recover: Recover) -> Iterator[WorkResult]:
    """Yield results in the order of arrival; see `Pool.stream`."""
    calls: dict[Any, _Call] = {}  # in the order of issue
    again: deque[tuple[WorkItem, Ledger]] = deque()
    arrived: deque[WorkResult] = deque()

    def fresh() -> tuple[WorkItem, Ledger]:
        item = source()
        check_size(item.payload, f"work item {item.work_id} of outer step {item.outer_step}")
        return item, Ledger([item], recover, pool.stats, arrived.append)

    while True:
        for _ in range(_CALLS):  # everybody gets a first one before anybody a second one
            for slot in pool.ready():
                if sum(call.slot is slot for call in calls.values()) < _CALLS:
                    item, ledger = again.popleft() if again else fresh()
                    calls[slot.actor.answer.remote(item)] = _Call(slot, item, ledger)
        for reference in pool.wait([*calls]):
            if (call := calls.get(reference)) is None:
                continue  # it was lost with another call of its actor
            reply, cause = pool.receive(reference)
            if reply is not None:
                del calls[reference]
                if (item_again := call.ledger.settle(call.item, reply, call.slot.index)) is not None:
                    again.append((item_again, call.ledger))
                continue
            pool.lose(call.slot, cause)
            lost = {key: value for key, value in calls.items() if value.slot is call.slot}
            for place, (key, value) in enumerate(lost.items()):
                del calls[key]
                retry = value.ledger.lose(value.item, value.slot.index, cause) if place == 0 else value.item
                if retry is not None:
                    again.append((retry, value.ledger))
        while arrived:
            yield arrived.popleft()
