"""Rows: means over episodes, counts, and the order of groups."""

import math
from dataclasses import dataclass

import pytest

from metaopt.outer.ppo.collectors import Collected
from metaopt.outer.ppo.export import last_rewards
from metaopt.outer.ppo.rows import mean_reward, policy_row


@dataclass(frozen=True)
class Group:
    family: str
    rewards: list[float]
    decisions: int = 10
    failed: int = 0
    inner_steps: int = 100


def collected() -> Collected:
    groups = [Group("b", [0.0, 1.0], failed=1), Group("a", [-3.0, 0.0, 0.0, 0.0], decisions=4), Group("b", [0.5])]
    return Collected(groups, [(7, 3), (6, 2), (8, 3)], rejected=2, spoiled=1, stale=4)  # type: ignore[arg-type]


def test_rewards_are_per_episode() -> None:
    row = policy_row(4, collected(), {"kl": 0.01}, False, stage=1, skipped=0)
    assert row["reward"] == mean_reward(collected()) == pytest.approx(-1.5 / 7)
    assert row["families"] == pytest.approx({"a": -0.75, "b": 0.5})
    assert list(row["families"]) == ["a", "b"]
    means = [0.5, -0.75, 0.5]
    centre = sum(means) / 3
    assert row["reward_se"] == pytest.approx(math.sqrt(sum((x - centre) ** 2 for x in means) / 2 / 3))
    assert (row["episodes"], row["decisions"], row["inner_steps"], row["diverged"]) == (7, 24, 300, 1)
    assert (row["rejected"], row["spoiled"], row["stale"], row["staleness"], row["stage"], row["kl"]) == (2, 1, 4, 1, 1, 0.01)
    assert "groups" not in row


def test_the_order_of_groups_is_told_where_it_is_no_function_of_the_config() -> None:
    assert policy_row(4, collected(), None, True)["groups"] == [[7, 3], [6, 2], [8, 3]]


def test_a_step_without_episodes_has_a_row() -> None:
    row = policy_row(4, Collected(), None, False)
    assert math.isnan(row["reward"])
    assert math.isnan(row["reward_se"])
    assert (row["families"], row["episodes"], row["staleness"]) == ({}, 0, 0)
    assert mean_reward(Collected()) is None


def test_the_last_tenth_is_what_the_card_tells() -> None:
    rows = [{"reward": float(i)} for i in range(100)]
    mean, low, high = last_rewards(rows)
    assert mean == pytest.approx(94.5)
    half = 1.96 * math.sqrt(sum((i - 94.5) ** 2 for i in range(90, 100)) / 9 / 10)
    assert (low, high) == pytest.approx((94.5 - half, 94.5 + half))
    assert last_rewards(rows[:3])[0] == pytest.approx(1.5)
    assert last_rewards([*rows, {"reward": math.nan}])[0] == pytest.approx(95.0)
    assert all(map(math.isnan, last_rewards([{"reward": math.nan}])))
    assert last_rewards(rows[:1])[0] == 0.0
    assert math.isnan(last_rewards(rows[:1])[1])
