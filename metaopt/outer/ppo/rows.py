"""What the rows of metrics say about an outer step of policy training."""

import math
from collections.abc import Mapping
from typing import Any

from metaopt.outer.ppo.collectors import Collected

__all__ = ["mean_reward", "policy_row"]


def mean_reward(collected: Collected) -> float | None:
    """Return the mean over episodes of their sum of rewards: a failed episode is short, and must not count less. None without episodes."""
    rewards = [reward for played in collected.played for reward in played.rewards]
    return sum(rewards) / len(rewards) if rewards else None


def policy_row(
    step: int, collected: Collected, statistics: Mapping[str, float] | None, log_order: bool, **counts: int | float
) -> dict[str, Any]:
    """Return the row of the `step`-th outer step.

    Rewards are means over episodes, with the standard error of groups, whose episodes share their tasks.

    Args:
        statistics: of the update; None if there was none.
        log_order: whether to say which groups were used, in their order: [number, version of the policy] each.
        counts: the caller's.
    """
    played = collected.played
    by_family: dict[str, list[float]] = {}
    for group in played:
        by_family.setdefault(group.family, []).extend(group.rewards)
    reward = mean_reward(collected)
    row: dict[str, Any] = {"step": step, "reward": math.nan if reward is None else reward, "reward_se": _standard_error(collected)}
    row["families"] = {name: sum(values) / len(values) for name, values in sorted(by_family.items())}
    row |= dict(statistics or {})
    row |= {
        "episodes": sum(len(group.rewards) for group in played),
        "decisions": collected.decisions,
        "inner_steps": sum(group.inner_steps for group in played),
        "diverged": sum(group.failed for group in played),
        "rejected": collected.rejected,
        "spoiled": collected.spoiled,
        "stale": collected.stale,
        "staleness": max((step - 1 - version for _, version in collected.groups), default=0),
        **counts,
    }
    if log_order:
        row["groups"] = [list(group) for group in collected.groups]
    return row


def _standard_error(collected: Collected) -> float:
    means = [sum(group.rewards) / len(group.rewards) for group in collected.played]
    if len(means) < 2:
        return math.nan
    centre = sum(means) / len(means)
    return math.sqrt(sum((mean - centre) ** 2 for mean in means) / (len(means) - 1) / len(means))
