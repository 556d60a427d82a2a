"""A pool of Ray actors. The modules `ray_*` alone import Ray; `metaopt.cluster.make_pool` imports this one when it is asked for.

Ray only starts processes and carries messages: it neither restarts actors nor retries calls (`max_restarts=0`, `max_task_retries=0`),
because its retries are at-least-once. What happens after a loss is decided by the ledger. One call is in flight for each worker.
"""

import signal
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from metaopt.cluster.ledger import Ledger, RestartBudget
from metaopt.cluster.placement import longest_first, place
from metaopt.cluster.pool import (
    Arrived,
    PoolStats,
    Recover,
    Reply,
    Setup,
    Shared,
    Source,
    Worker,
    WorkItem,
    WorkResult,
    answer,
    check_same_versions,
    check_size,
    versions,
)
from metaopt.cluster.ray_start import START_TIMEOUT_S, fit, last_line, start_ray
from metaopt.cluster.ray_stream import stream
from metaopt.errors import MetaoptError, WorkerLostError

__all__ = ["RayPool"]

_CACHED = 2  # shared objects that a worker keeps unpacked: those of this outer step and the one before

T = TypeVar("T")


@dataclass(frozen=True)
class _InStore(Generic[T]):
    """Handle of an object in Ray's store, which frees the object when the last handle is gone."""

    reference: Any

    def get(self) -> T:
        import ray

        key = self.reference.hex()
        if key not in _unpacked:
            _unpacked[key] = ray.get(self.reference)
            while len(_unpacked) > _CACHED:
                _unpacked.popitem(last=False)
        value: T = _unpacked[key]
        return value


_unpacked: OrderedDict[str, Any] = OrderedDict()


class _Host:
    """The actor: holds one worker in a process of its own."""

    def versions(self) -> dict[str, str]:
        return versions()

    def build(self, setup: Setup, threads: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; only the driver decides what it means
        self._threads = threads
        self._worker: Worker = setup.build()

    def answer(self, item: WorkItem) -> Reply:
        return answer(self._worker, item, self._threads)


@dataclass
class Slot:
    """One worker's place: its actor (None while it may not yet be re-created), its queue and the one call in flight."""

    index: int
    budget: RestartBudget = field(default_factory=RestartBudget)
    actor: Any = None
    handshake: Any = None
    pending: Any = None
    item: WorkItem | None = None
    ledger: Ledger | None = None
    revive_at: float = 0.0
    queue: deque[WorkItem] = field(default_factory=deque)


class RayPool:
    """Runs items on `workers` Ray actors of `threads` CPUs each.

    Uses the Ray that this process has already joined, else joins the one at `address`, else starts a private one on this machine, which is
    the only kind that `close` shuts down.

    Args:
        workers: number of actors, [1, inf).
        address: "host:port" or "auto"; None for this machine.
        setup: picklable recipe of a worker.
        threads: torch threads and CPUs of each actor.
        device: an actor on "cuda" gets an equal share of the cluster's GPUs.

    Raises:
        ConfigError: unreachable address, cluster too small, worker with other versions, or what `setup.build` raises.
        WorkerLostError: a worker did not come up.
    """

    def __init__(self, workers: int, address: str | None, setup: Setup, threads: int = 1, device: str = "cpu") -> None:
        self.workers = workers
        self.stats = PoolStats()
        self._setup = setup
        self._threads = threads
        self._costs: dict[int, float] = {}
        self._places: dict[int, int] = {}
        self._slots = [Slot(index) for index in range(workers)]
        self._owns_ray = start_ray(address, workers * threads)
        try:
            self._gpus = fit(workers, threads, device)
            self._come_up()
        except BaseException:
            self.close()
            raise

    def share(self, value: T) -> Shared[T]:
        """Put `value` into Ray's object store once and return its handle."""
        import ray

        return _InStore(ray.put(value))

    def run(self, items: Sequence[WorkItem], recover: Recover, arrived: Arrived | None = None, anywhere: bool = False) -> list[WorkResult]:
        """Return one result an item, sorted by `work_id`; see `Pool.run`."""
        for item in items:
            check_size(item.payload, f"work item {item.work_id} of outer step {item.outer_step}")
        ledger = Ledger(items, recover, self.stats, arrived)
        orphans = deque(items if anywhere else ())  # theirs is no worker, or one that died: whoever is free first takes them
        by_id = {item.work_id: item for item in items}
        for slot in self._slots:
            own = [] if anywhere else [work for work in by_id if self._places.get(work, work % self.workers) == slot.index]
            slot.queue = deque(by_id[work] for work in longest_first(own, self._costs))
        while not ledger.complete:
            for slot in self._slots:
                self._advance(slot, ledger, orphans)
            for slot in self._arrived():
                self._collect(slot, ledger, orphans)
        return ledger.results()

    def stream(self, source: Source, recover: Recover) -> Iterator[WorkResult]:
        """Yield results in the order of arrival; see `Pool.stream`."""
        return stream(self, source, recover)

    def balance(self, costs: Mapping[int, float], groups: Sequence[Sequence[int]] = ()) -> None:
        """Place work on actors by its cost, and issue each actor's longest first; see `Pool.balance`."""
        self._costs, self._places = dict(costs), place(costs, self.workers, groups)

    def close(self) -> None:
        """End all workers, and Ray when this pool started it."""
        import ray

        for slot in self._slots:
            if slot.actor is not None and ray.is_initialized():
                with suppress(RuntimeError, ValueError):  # dead already
                    ray.kill(slot.actor, no_restart=True)
            slot.actor = slot.pending = slot.handshake = slot.item = None
        _unpacked.clear()
        if self._owns_ray:
            self._owns_ray = False
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ready(self) -> list[Slot]:
        """Return the slots whose worker can take an item, after re-creating those that are due."""
        for slot in self._slots:
            if slot.actor is None and time.monotonic() >= slot.revive_at:
                self._create(slot)
        return [slot for slot in self._slots if slot.actor is not None and slot.pending is None]

    def wait(self, calls: Iterable[Any]) -> list[Any]:
        """Wait until a call has ended, a worker has come up, or one may be re-created; return the calls that have ended."""
        import ray

        slots = {slot.pending: slot for slot in self._slots if slot.pending is not None}
        references, timeout = [*calls, *slots], self._until_due()
        if not references:
            time.sleep(timeout or 0.0)
            return []
        ended, _ = ray.wait(references, num_returns=1, timeout=timeout)
        for reference in ended:
            if reference in slots:  # a start, or what an abandoned run left behind
                self._collect(slots[reference], Ledger([], lambda item, reason: None, self.stats), deque())
        return [reference for reference in ended if reference not in slots]

    def receive(self, call: Any) -> tuple[Reply | None, str]:
        """Return the reply of a call that has ended; None and the cause where its worker was lost."""
        import ray

        try:
            return ray.get(call), ""
        except ray.exceptions.RayTaskError as error:  # a payload or value that cannot travel; the actor is well
            return Reply("error", str(error), 0.0), ""
        except ray.exceptions.RayError as error:
            return None, type(error).__name__

    def _come_up(self) -> None:
        """Start all actors at once and wait for them: what is wrong must show before the first outer step."""
        import ray

        for slot in self._slots:
            self._create(slot)
        _, late = ray.wait([slot.pending for slot in self._slots], num_returns=self.workers, timeout=START_TIMEOUT_S)
        if late:
            raise WorkerLostError(
                f"{len(late)} of {self.workers} workers did not start in {START_TIMEOUT_S:.0f} s: the cluster is busy or cannot place them"
            )
        for slot in self._slots:
            try:
                self._greet(slot)
            except ray.exceptions.RayError as error:
                raise WorkerLostError(f"worker {slot.index} could not start: {last_line(error)}") from error

    def _create(self, slot: Slot) -> None:
        import ray

        threads = {name: str(self._threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        slot.actor = (
            ray.remote(_Host)
            .options(
                num_cpus=self._threads,
                num_gpus=self._gpus,
                max_restarts=0,
                max_task_retries=0,
                runtime_env={"env_vars": threads},  # in the environment before torch is imported
            )
            .remote()
        )
        slot.handshake = slot.actor.versions.remote()
        slot.pending = slot.actor.build.remote(self._setup, self._threads)

    def _greet(self, slot: Slot) -> None:
        """Finish the start of a worker whose `build` has returned: first its versions, for a skew explains any other failure."""
        import ray

        handshake, built = slot.handshake, slot.pending
        slot.handshake = slot.pending = None
        check_same_versions(versions(), ray.get(handshake), f"worker {slot.index}")
        try:
            ray.get(built)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MetaoptError):
                raise error.cause from None
            raise

    def _advance(self, slot: Slot, ledger: Ledger, orphans: deque[WorkItem]) -> None:
        """Re-create the slot's actor when it is due, or give a free one its next item."""
        if slot.actor is None and time.monotonic() >= slot.revive_at:
            self._create(slot)
        if slot.actor is None or slot.pending is not None:
            return
        queue = slot.queue or orphans
        if queue:
            slot.item, slot.ledger = queue.popleft(), ledger
            slot.pending = slot.actor.answer.remote(slot.item)

    def _arrived(self) -> list[Slot]:
        """Wait until a call has ended or a worker may be re-created; return the slots whose call has ended."""
        import ray

        pending, timeout = {slot.pending: slot for slot in self._slots if slot.pending is not None}, self._until_due()
        if not pending:
            time.sleep(timeout or 0.0)
            return []
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=timeout)
        return [pending[reference] for reference in ready]

    def _until_due(self) -> float | None:
        """Return the seconds until a worker may be re-created, None if all are there."""
        due = [slot.revive_at for slot in self._slots if slot.actor is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _collect(self, slot: Slot, ledger: Ledger, orphans: deque[WorkItem]) -> None:
        """Take the answer of a call that has ended, whatever it is."""
        import ray

        item, slot.item = slot.item, None
        current, slot.ledger = slot.ledger is ledger, None  # or else it keeps the results, and through them the store, of a past step
        try:
            if item is None:
                self._greet(slot)
                return
            reference, slot.pending = slot.pending, None
            try:
                reply = ray.get(reference)
            except ray.exceptions.RayTaskError as error:  # a payload or value that cannot travel; the actor is well
                reply = Reply("error", str(error), 0.0)
        except ray.exceptions.RayError as error:
            cause = type(error).__name__ if item is not None else last_line(error)  # after a start, the text says what is wrong
            self.lose(slot, cause)
            again = None if item is None or not current else ledger.lose(item, slot.index, cause)
            if again is not None:
                orphans.append(again)
            return
        if not current:  # issued by a run that was abandoned
            self.stats.duplicates += 1
            return
        again = ledger.settle(item, reply, slot.index)
        if again is not None:
            slot.queue.appendleft(again)

    def lose(self, slot: Slot, cause: str) -> None:
        """Make sure that a worker is gone, and enter when it may be re-created."""
        import ray

        with suppress(RuntimeError, ValueError):
            ray.kill(slot.actor, no_restart=True)  # it may live on behind a broken connection
        slot.actor = slot.pending = slot.handshake = None
        slot.revive_at = slot.budget.spend(slot.index, cause)
        self.stats.restarts += 1
