"""Turns: the curriculum first, then in turn or by the rates of families; costs are measured once or given."""

import pytest

from metaopt.config import load_config
from metaopt.outer import turns
from metaopt.outer.prediction import ShardCost
from metaopt.outer.shards import shard_sources
from metaopt.outer.turns import Turns, measured_costs

TASKS = "tasks=[{family: quadratic, shards: 2, horizon: [25, 40]}, {family: digits_mlp, shards: 6, horizon: [25, 40]}]"


def config(*changes: str):
    return load_config("quickstart", [TASKS, "outer.shards_per_step=2", *changes])


def made(c, record=None, steps: int = 400) -> list[list[int]]:
    shards = Turns(c, shard_sources(c), record or {})
    return [shards.shards(step, range(8)) for step in range(steps)]


def visits(chosen: list[list[int]], *members: int) -> int:
    return sum(shard in members for step in chosen for shard in step)


def test_by_default_every_shard_works_equally_often() -> None:
    chosen = made(config())
    assert chosen[:5] == [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1]]
    assert made(load_config("quickstart", [TASKS]), steps=3) == [list(range(8))] * 3


def test_families_get_equal_steps_or_equal_time() -> None:
    chosen = made(config("outer.mixing=equal_steps"))
    assert abs(visits(chosen, 0, 1) - 400) <= 4
    time = config("outer.mixing=equal_time", "outer.costs={quadratic: 1.0, digits_mlp: 8.0}")
    chosen = made(time, measured_costs(time, "cpu"))
    assert abs(visits(chosen, 0, 1) - 8 * visits(chosen, *range(2, 8))) <= 40


def test_costs_are_measured_only_where_time_is_shared_and_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def shard_costs(config, device):
        asked.append(device)
        families = ["quadratic"] * 2 + ["digits_mlp"] * 2
        return tuple(ShardCost(name, "any", s, 1, 1, True) for name, s in zip(families, (0.01, 0.03, 0.1, 0.22), strict=True))

    monkeypatch.setattr("metaopt.outer.prediction.shard_costs", shard_costs)
    assert measured_costs(config(), "cpu") == measured_costs(config("outer.mixing=equal_steps"), "cpu") == {}
    given = "outer.costs={quadratic: 1.0, digits_mlp: 4.0}"
    assert measured_costs(config("outer.mixing=equal_time", given), "cpu") == {"quadratic": 0, "digits_mlp": 4}
    assert asked == []
    assert measured_costs(config("outer.mixing=equal_time"), "cpu") == {"quadratic": 0, "digits_mlp": 6}  # 0.02 and 0.16
    assert asked == ["cpu"]


def test_the_curriculum_comes_first() -> None:
    early = config("outer.curriculum=[{from_frac: 0, template_frac: 0.3}, {from_frac: 0.5}]", "outer.mixing=equal_steps", "outer.steps=20")
    chosen = made(early, steps=20)
    assert {shard for step in chosen[:10] for shard in step} < {shard for step in chosen[10:] for shard in step}


def test_shards_are_spread_by_cost_over_more_than_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakePool:
        workers = 2
        told = None

        def balance(self, costs, groups=()):
            self.told = costs, groups

    pool = FakePool()
    c = config("outer.steps=7")
    Turns(c, shard_sources(c), {}).balance(pool)
    costs, groups = pool.told
    assert sorted(costs) == list(range(8))
    assert max(costs[0], costs[1]) < min(costs[i] for i in range(2, 8))
    assert groups == made(c, steps=7)
    pool.workers, pool.told = 1, None
    monkeypatch.setattr(turns, "template_cost", lambda *args: 1 / 0)
    Turns(c, shard_sources(c), {}).balance(pool)
    assert pool.told is None
