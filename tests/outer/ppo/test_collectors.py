"""Collection: lock-step is a function of config and step, asynchronous collection takes each group once and none that is too old."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from metaopt.cluster import LocalPool, WorkItem, WorkResult
from metaopt.config.policy import PolicyStageConfig
from metaopt.outer.ppo.collect import Played
from metaopt.outer.ppo.collectors import Asynchronous, Collected, Lockstep, make_collector
from metaopt.outer.ppo.state import PPOState
from metaopt.outer.ppo.worker import CollectSetup, Rejected
from tests.outer.ppo.toys import ToyWorld, toy_config

STAGE = PolicyStageConfig()
ASYNC = "outer.collection=async"


def never(result: WorkResult) -> None:
    raise AssertionError(result.error)


class Backwards:
    """A pool that answers in the opposite order, and keeps what it was asked."""

    workers = 1

    def __init__(self, setup: CollectSetup) -> None:
        self.inner, self.asked = LocalPool(setup), []
        self.share, self.stats = self.inner.share, self.inner.stats

    def run(self, items: Any, recover: Any, arrived: Any = None, anywhere: bool = False) -> list[WorkResult]:
        assert anywhere
        self.asked += items
        return sorted(self.inner.run(items[::-1], recover, anywhere=True), key=lambda result: result.item.work_id)


def test_lockstep_gives_groups_in_the_order_of_their_numbers() -> None:
    config, world = toy_config("outer.groups_per_step=6"), ToyWorld()
    setup = CollectSetup(config, world)
    plain, backwards = LocalPool(setup), Backwards(setup)
    found = []
    for pool in (plain, backwards):
        policy = pool.share(PPOState(config, world).weights)
        found.append([make_collector(config, world, pool).collect(step, policy, STAGE, never) for step in range(2)])
    for one, two in zip(*found, strict=True):
        assert one.groups == two.groups == [(number, one.groups[0][1]) for number in range(6)]
        assert [played.rewards for played in one.played] == [played.rewards for played in two.played]
    assert [played.rewards for played in found[0][0].played] != [played.rewards for played in found[0][1].played]
    horizons = [world.draw(item.payload.seed, STAGE).horizon for item in backwards.asked[:6]]
    assert horizons == sorted(horizons, reverse=True)
    assert len(set(horizons)) > 1, "long ones first, whatever their numbers"


def test_lockstep_goes_on_without_a_group_that_fails_for_good() -> None:
    config, world = toy_config(), ToyWorld()
    pool, lost = LocalPool(CollectSetup(config, world)), []
    honest = pool._worker.handle

    def handle(item: WorkItem) -> Any:
        if item.work_id == 1:
            raise RuntimeError("planted")
        return honest(item)

    pool._worker.handle = handle  # type: ignore[method-assign]
    collected = Lockstep(config, world, pool).collect(0, pool.share(PPOState(config, world).weights), STAGE, lost.append)
    assert [number for number, _ in collected.groups] == [0, 2]
    assert [result.item.work_id for result in lost] == [1]


def test_what_cannot_be_used_is_counted() -> None:
    collected = Collected()
    item = WorkItem(2, 5, 0, None)
    assert not collected.take(WorkResult(item, Rejected(8, "flat"), seconds=1.0))
    assert (collected.rejected, collected.worker_s, collected.played) == (8, 1.0, [])


class Script:
    """A pool whose stream issues ahead and answers in an order of its own; what a worker would return is made up."""

    workers = 3

    def __init__(self, seed: int, flying: int = 5, twice: bool = False, failing: float = 0.0) -> None:
        self.random, self.ahead, self.twice, self.failing = random.Random(seed), flying, twice, failing
        self.issued: list[WorkItem] = []

    def share(self, value: Any) -> Any:
        return value

    def stream(self, source: Callable[[], WorkItem], recover: Any) -> Iterator[WorkResult]:
        waiting: list[WorkItem] = []
        while True:
            while len(waiting) < self.ahead:
                waiting.append(source())
                self.issued.append(waiting[-1])
            item = waiting.pop(self.random.randrange(len(waiting)))
            if self.random.random() < self.failing:
                waiting.append(recover(item, "lost"))
                yield WorkResult(item, made_up(item))  # an answer that came back after its worker was given up
                continue
            yield WorkResult(item, made_up(item))
            if self.twice:
                yield WorkResult(item, made_up(item))


class MadeUp(Played):
    """A group of seven decisions."""

    decisions = 7  # type: ignore[assignment]
    finite = True  # type: ignore[assignment]


def made_up(item: WorkItem) -> MadeUp:
    return MadeUp(episodes=None, family="quadratic", failed=0, inner_steps=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bound", [0, 1, 3])
def test_no_group_is_taken_twice_or_too_old(seed: int, bound: int) -> None:
    config = toy_config(ASYNC, "outer.decisions_per_step=20", f"outer.max_staleness={bound}")
    pool = Script(seed, flying=9, twice=True, failing=0.2)
    collector = Asynchronous(config, pool)  # type: ignore[arg-type]
    taken: list[int] = []
    stale = 0
    for step in range(40):
        collected = collector.collect(step, None, STAGE, never)  # type: ignore[arg-type]
        assert collected.decisions >= 20
        assert len(collected.played) == 3, "and no more than needed"
        assert all(0 <= step - version <= bound for _, version in collected.groups)
        taken += [number for number, _ in collected.groups]
        stale += collected.stale
    assert len(taken) == len(set(taken)) == 120
    flying = set(collector.state()["flying"])
    assert not flying & set(taken)
    assert set(taken) | flying <= set(range(collector.state()["issued"]))
    assert collector.state()["issued"] == len(taken) + len(flying) + stale, "every group has one fate"
    assert stale > 0 or bound == 3
    assert all(item.payload.version == item.outer_step for item in pool.issued)


def test_groups_are_counted_where_no_number_of_decisions_is_given() -> None:
    collector = Asynchronous(toy_config(ASYNC), Script(0))  # type: ignore[arg-type]
    assert len(collector.collect(0, None, STAGE, never).played) == 3  # type: ignore[arg-type]


def test_a_resumed_collector_plays_again_what_was_under_way() -> None:
    config = toy_config(ASYNC)
    pool = Script(1)
    collector = Asynchronous(config, pool)  # type: ignore[arg-type]
    taken = [number for step in range(4) for number, _ in collector.collect(step, None, STAGE, never).groups]  # type: ignore[arg-type]
    state = collector.state()
    collector.close()
    assert sorted(taken + state["flying"]) == list(range(state["issued"]))
    later = Script(2)
    resumed = Asynchronous(config, later)  # type: ignore[arg-type]
    resumed.load(state)
    assert resumed.state() == state
    taken += [number for step in range(4, 9) for number, _ in resumed.collect(step, None, STAGE, never).groups]  # type: ignore[arg-type]
    numbers = [item.work_id for item in later.issued]
    assert numbers[: len(state["flying"])] == state["flying"]
    assert numbers[len(state["flying"]) :] == list(range(state["issued"], state["issued"] + len(numbers) - len(state["flying"])))
    assert len(taken) == len(set(taken))
    seeds = {item.work_id: item.payload.seed for item in pool.issued}
    assert all(item.payload.seed == seeds.get(item.work_id, item.payload.seed) for item in later.issued), "a number is one group"


def test_a_step_ends_when_nothing_can_be_used() -> None:
    config, world = toy_config(ASYNC), ToyWorld(rejecting=1.0)
    pool = LocalPool(CollectSetup(config, world))
    collected = make_collector(config, world, pool).collect(0, pool.share(PPOState(config, world).weights), STAGE, never)
    assert collected.played == []
    assert collected.rejected == 8 * 8 * 3
