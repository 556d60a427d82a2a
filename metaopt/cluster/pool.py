"""What a pool of workers promises, whatever it is made of: work items in, results in `work_id` order out.

A pool owns `workers` workers, each built on its own machine from the same picklable `setup`. Workers may hold state between items
(particles), so an item goes to worker `work_id % workers` whenever that one is there. The trainer alone decides what a result is used for.
"""

import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.version import __version__

__all__ = [
    "Arrived",
    "Pool",
    "PoolStats",
    "Reason",
    "Recover",
    "Reply",
    "Setup",
    "Shared",
    "Source",
    "StateMissing",
    "WorkItem",
    "WorkResult",
    "Worker",
    "answer",
    "check_same_versions",
    "check_size",
    "fixed_threads",
    "versions",
]

MAX_MESSAGE_BYTES = 256 << 20

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Reason = Literal["lost", "state_missing", "error"]
"""Why an item is offered to `recover`: its worker died, its worker lacks the state it needs, or handling it raised."""


class StateMissing(Exception):
    """Raised by a worker that does not hold the state an item builds on, before it changes anything."""


@dataclass(frozen=True)
class WorkItem:
    """One piece of work; `payload` is plain picklable data and may hold `Shared` handles.

    Args:
        outer_step: outer step `k` that the item belongs to.
        work_id: its place in the fixed order of reduction, unique inside one `Pool.run`.
        attempt: 0 at first issue, one more each time it is issued again.
    """

    outer_step: int
    work_id: int
    attempt: int
    payload: Any

    @property
    def identity(self) -> tuple[int, int, int]:
        """`(outer_step, work_id, attempt)`: a result is applied zero or one times under this key."""
        return self.outer_step, self.work_id, self.attempt


@dataclass(frozen=True)
class WorkResult:
    """What became of an item: `value`, or `error` (one traceback or reason for each attempt) when it is quarantined.

    Args:
        seconds: computing time of the last attempt, from the monotonic clock; belongs in `timing.jsonl` only.
        worker: index of the worker that answered last, -1 when none did.
    """

    item: WorkItem
    value: Any = None
    error: str | None = None
    seconds: float = 0.0
    worker: int = -1


@dataclass
class PoolStats:
    """Counters over the life of a pool: items issued, issued again, answered twice (dropped), given up; workers re-created."""

    issued: int = 0
    reissued: int = 0
    duplicates: int = 0
    quarantined: int = 0
    restarts: int = 0


Recover = Callable[[WorkItem, Reason], WorkItem | None]
"""Return the item to issue again (attempt + 1, payload with all that a worker without state needs), or None to quarantine it."""

Arrived = Callable[[WorkResult], None]
"""Take the result of an item as soon as it is settled, in the order of arrival; what it raises ends the run."""


Source = Callable[[], WorkItem]
"""Give the next item of a stream, whenever a worker has too little to do."""


class Worker(Protocol):
    """What runs on a worker. After an exception its state must be what it was before the call: build the new state, then assign it."""

    def handle(self, item: WorkItem) -> Any:
        """Return the value of `item`, plain picklable data; raise `StateMissing` when the state it builds on is not held here."""


class Setup(Protocol):
    """Picklable recipe of a worker (a frozen dataclass); `build` runs once on the worker's machine."""

    def build(self) -> Worker:
        """Return a fresh worker without particles."""


class Shared(Protocol[T_co]):
    """Handle of an object that was put once for all workers. It lives as long as a handle to it does."""

    def get(self) -> T_co:
        """Return the object as it was when shared. It may be the same object for several items of a worker: do not write to it."""


class Pool(Protocol):
    """Workers behind one call. Use as a context manager; `close` leaves nothing of it running."""

    workers: int
    stats: PoolStats

    def share(self, value: T) -> Shared[T]:
        """Put `value` once and return a handle for payloads; later changes to `value` do not show."""

    def run(self, items: Sequence[WorkItem], recover: Recover, arrived: Arrived | None = None, anywhere: bool = False) -> list[WorkResult]:
        """Return one result an item, sorted by `work_id` whatever the order of arrival.

        An item is issued again through `recover` when its worker is lost, answers `StateMissing` or raises; it is quarantined (a result
        with `error`) after 3 such attempts or when `recover` returns None. The pool outlives all of this, and what `arrived` raises.

        Args:
            items: each with its own `work_id`.
            recover: see `Recover`.
            arrived: called once for each result, quarantined ones included, when it is there; a late or second answer is no result.
            anywhere: items build on nothing that a worker holds: whoever is free takes the next one in the order given.

        Raises:
            WorkerLostError: one worker had to be re-created more than 5 times in 10 minutes.
            ConfigError: a payload is too large for a message.
        """

    def stream(self, source: Source, recover: Recover) -> Iterator[WorkResult]:
        """Yield results in the order of arrival, for as long as somebody asks for the next one.

        Workers are kept at work, also while the caller is at work on a result: each holds one item and has another waiting. Items build on
        nothing that a worker holds; they are issued again and quarantined as in `run`. Whoever ends the iteration leaves what is under way
        behind: those results go nowhere.

        Args:
            source: asked for an item whenever a worker has no second one.
            recover: see `Recover`.

        Raises:
            WorkerLostError: as `run`.
            ConfigError: a payload is too large for a message.
        """

    def balance(self, costs: Mapping[int, float], groups: Sequence[Sequence[int]] = ()) -> None:
        """Spread work over the workers by what it costs; call it before the first item, because work that moves leaves its state behind.

        Args:
            costs: seconds, or anything in proportion, by work id; ids without one go by their number.
            groups: work ids that are run together; see `metaopt.cluster.placement.place`.

        No result depends on it, only how long one worker waits for another.
        """

    def close(self) -> None:
        """End all workers. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


@dataclass(frozen=True)
class Reply:
    """A worker's answer to one item, as it travels back."""

    kind: Literal["value", "error", "state_missing"]
    content: Any
    seconds: float


def answer(worker: Worker, item: WorkItem, threads: int) -> Reply:
    """Let `worker` handle `item` with exactly `threads` torch threads, and turn whatever it raises into a reply."""
    start = time.monotonic()

    def reply(kind: Literal["value", "error", "state_missing"], content: Any) -> Reply:
        return Reply(kind, content, time.monotonic() - start)

    with fixed_threads(threads):
        try:
            value = worker.handle(item)
            check_size(value, f"the result of work item {item.work_id} of outer step {item.outer_step}")
            return reply("value", value)
        except StateMissing as missing:
            return reply("state_missing", str(missing))
        except Exception:  # counted by the ledger, and its text is kept
            return reply("error", traceback.format_exc())


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Compute with exactly `threads` torch threads inside the block: sums depend on the number [measured], so it is part of the result."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_size(message: Any, name: str, limit_bytes: int = MAX_MESSAGE_BYTES) -> None:
    """Refuse a message whose tensors, arrays and strings add up to more than `limit_bytes`.

    Raises:
        ConfigError: it is larger, with the size and the way out.
    """
    size = _size_bytes(message)
    if size > limit_bytes:
        raise ConfigError(
            f"{name} carries {size / 2**20:.1f} MiB, at most {limit_bytes / 2**20:.1f} MiB may travel in one message:"
            " share large objects with Pool.share, or lower outer.shard_particles"
        )


def versions() -> dict[str, str]:
    """Return the versions that results depend on: metaopt, torch (with its build tag) and python."""
    return {"metaopt": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def check_same_versions(driver: Mapping[str, str], worker: Mapping[str, str], name: str) -> None:
    """Refuse a worker that runs other versions than the driver.

    Raises:
        ConfigError: naming each package that differs.
    """
    skew = [f"{key} {worker.get(key, 'none')} (driver: {driver[key]})" for key in driver if worker.get(key) != driver[key]]
    if skew:
        raise ConfigError(f"{name} runs {', '.join(skew)}: install the same versions on every machine")


def _size_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_size_bytes(key) + _size_bytes(entry) for key, entry in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return sum(map(_size_bytes, value))
    if is_dataclass(value) and not isinstance(value, type) and not hasattr(value, "get"):  # a handle weighs nothing
        return sum(_size_bytes(getattr(value, field.name)) for field in fields(value))
    return int(getattr(value, "nbytes", 8))
