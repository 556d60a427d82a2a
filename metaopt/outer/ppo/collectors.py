"""Two ways to get the episodes of an outer step from a pool: in lock-step, or from workers that never wait.

In lock-step the groups of an outer step are functions of the config and the step, and are taken in the order of their numbers: the same
bytes for any number of workers and after any number of losses. Asynchronous collection takes groups as they arrive. Each has a number of
its own; a number is under way at most once, and is taken at most once. What was taken, of which policy and in which order, is in the
metrics, so that a run can be replayed.

Groups that take long are taken later than others, and never if their policy has become too old: a bound on staleness is a bias against
them.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from metaopt.cluster import Pool, Reason, Shared, WorkItem, WorkResult
from metaopt.config import PolicyConfig
from metaopt.config.policy import PolicyStageConfig
from metaopt.outer.ppo.collect import Played
from metaopt.outer.ppo.worker import GroupWork, Rejected, Weights
from metaopt.outer.ppo.worlds import World
from metaopt.seeds import stable_hash

__all__ = ["Asynchronous", "Collected", "Collector", "Lockstep", "make_collector"]

_FRUITLESS = 8  # groups in a row, for each group that a step wants, of which none could be used: then the step ends with what it has


@dataclass
class Collected:
    """The groups of one outer step, in the order in which they are used.

    Attributes:
        played: usable ones.
        groups: (number, version of its policy) of each.
        rejected: buckets and tasks that could not be scored.
        spoiled: groups with numbers that are not finite; they are left out.
        stale: groups whose policy was too old; they are left out.
        worker_s: time of workers.
    """

    played: list[Played] = field(default_factory=list)
    groups: list[tuple[int, int]] = field(default_factory=list)
    rejected: int = 0
    spoiled: int = 0
    stale: int = 0
    worker_s: float = 0.0

    @property
    def decisions(self) -> int:
        """Decisions of the usable groups."""
        return sum(played.decisions for played in self.played)

    def take(self, result: WorkResult) -> bool:
        """Enter a result that did not fail; return whether it can be used."""
        self.worker_s += result.seconds
        value: Played | Rejected = result.value
        if isinstance(value, Rejected):
            self.rejected += value.count
            return False
        self.rejected += value.rejected
        if not value.finite:
            self.spoiled += 1
            return False
        self.played.append(value)
        self.groups.append((result.item.work_id, result.item.outer_step))
        return True


GiveUp = Callable[[WorkResult], None]
"""Take note of a group that failed for good."""


class Collector(Protocol):
    """Gets the episodes of one outer step after the other."""

    def collect(self, step: int, policy: Shared[Weights], stage: PolicyStageConfig, give_up: GiveUp) -> Collected:
        """Return the groups of outer step `step`; new ones are played with `policy` and from `stage`."""

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""

    def close(self) -> None:
        """Leave behind what is under way."""


def make_collector(config: PolicyConfig, world: World, pool: Pool) -> Collector:
    """Return the collector that a config names."""
    return Lockstep(config, world, pool) if config.outer.collection == "lockstep" else Asynchronous(config, pool)


def again(item: WorkItem, reason: Reason) -> WorkItem:
    """Return the next attempt: a group builds on nothing that a worker could lack."""
    return replace(item, attempt=item.attempt + 1)


class Lockstep:
    """All groups of a step with one policy."""

    def __init__(self, config: PolicyConfig, world: World, pool: Pool) -> None:
        self._config, self._world, self._pool = config, world, pool

    def collect(self, step: int, policy: Shared[Weights], stage: PolicyStageConfig, give_up: GiveUp) -> Collected:
        """Return the groups of a step in the order of their numbers."""
        items = []
        for number in range(self._config.outer.groups_per_step):
            seed = stable_hash("group", self._config.seed, step, number)
            items.append(WorkItem(step, number, 0, GroupWork(policy, step, seed, stage)))
        # Long ones first, so that no worker begins one when all others are done; results are in the order of numbers all the same.
        items.sort(key=lambda item: -self._world.draw(item.payload.seed, stage).horizon)
        collected = Collected()
        for result in self._pool.run(items, again, anywhere=True):
            if result.error is not None:
                give_up(result)
            else:
                collected.take(result)
        return collected

    def state(self) -> dict[str, Any]:
        """Return nothing: steps have no memory."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing to continue."""

    def close(self) -> None:
        """Nothing is under way between two steps."""


class Asynchronous:
    """Groups of the newest policies, as they arrive.

    Groups are numbered in the order of issue. Those that are under way at a commit are in it: a resumed run plays them again, under their
    numbers, with the policy that it has by then.
    """

    def __init__(self, config: PolicyConfig, pool: Pool) -> None:
        self._config, self._pool = config, pool
        self._issued = 0
        self._again: deque[int] = deque()
        self._flying: dict[int, tuple[int, int]] = {}  # number -> (outer step, attempt) of the item that may be taken
        self._stream: Iterator[WorkResult] | None = None

    def _next(self) -> WorkItem:
        """Return the next group, to be played with the newest policy."""
        number = self._again.popleft() if self._again else self._issued
        self._issued = max(self._issued, number + 1)
        step, policy, stage = self._newest
        self._flying[number] = (step, 0)
        return WorkItem(step, number, 0, GroupWork(policy, step, stable_hash("group", self._config.seed, number), stage))

    def _retry(self, item: WorkItem, reason: Reason) -> WorkItem:
        retry = again(item, reason)
        self._flying[item.work_id] = (retry.outer_step, retry.attempt)
        return retry

    def collect(self, step: int, policy: Shared[Weights], stage: PolicyStageConfig, give_up: GiveUp) -> Collected:
        """Return groups in the order of arrival, until there are enough."""
        self._newest = (step, policy, stage)
        if self._stream is None:
            self._stream = self._pool.stream(self._next, self._retry)
        collected, fruitless = Collected(), 0
        while not self._enough(collected) and fruitless < _FRUITLESS * self._config.outer.groups_per_step:
            result = next(self._stream)
            item, fruitless = result.item, fruitless + 1
            if self._flying.get(item.work_id) != (item.outer_step, item.attempt):
                continue  # taken already
            del self._flying[item.work_id]
            if result.error is not None:
                give_up(result)
            elif step - item.outer_step > self._config.outer.max_staleness:
                collected.stale += 1
                collected.worker_s += result.seconds
            elif collected.take(result):
                fruitless = 0
        return collected

    def _enough(self, collected: Collected) -> bool:
        outer = self._config.outer
        if outer.decisions_per_step is None:
            return len(collected.played) >= outer.groups_per_step
        return collected.decisions >= outer.decisions_per_step

    def state(self) -> dict[str, Any]:
        """Return the numbers that were issued, and those under way."""
        return {"issued": self._issued, "flying": sorted({*self._flying, *self._again})}

    def load(self, state: dict[str, Any]) -> None:
        """Continue: what was under way is issued again, before anything new."""
        self._issued, self._again = state["issued"], deque(state["flying"])

    def close(self) -> None:
        """Leave behind what is under way."""
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined]  # a generator
            self._stream = None
