"""The artifact of a policy's training: the running mean of policies, and a card that says where it comes from."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from metaopt.artifacts.policy import policy_artifact
from metaopt.config import PolicyConfig
from metaopt.learners.policies.network import PolicyNetwork
from metaopt.outer.ppo.worker import policy_spec
from metaopt.outer.ppo.worlds import World
from metaopt.seeds import key

__all__ = ["export", "last_rewards"]

_LAST_FRAC = 0.1  # of the outer steps, whose rewards the card tells
_NORMAL_95 = 1.96

Rows = Sequence[dict[str, Any]]


def last_rewards(rows: Rows) -> tuple[float, float, float]:
    """Return the mean reward of the last tenth of the outer steps, at least two, with the 95 % normal interval over steps, or not-a-number.

    It is that of sampled actions on training tasks, by policies on their way: where a run ended up, and no evaluation.
    """
    rewards = [row["reward"] for row in rows[-max(2, round(_LAST_FRAC * len(rows))) :] if math.isfinite(row["reward"])]
    if not rewards:
        return math.nan, math.nan, math.nan
    mean = sum(rewards) / len(rewards)
    if len(rewards) == 1:
        return mean, math.nan, math.nan
    half = _NORMAL_95 * math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1) / len(rewards))
    return mean, mean - half, mean + half


def export(config: PolicyConfig, world: World, weights: dict[str, Tensor], rows: Rows, device_hours: float, path: Path) -> None:
    """Write the artifact of a finished run to `path`.

    Args:
        weights: state of the policy, buffers included.
        rows: of the metrics.
        device_hours: computing time of all workers.

    Raises:
        UnsafeArtifactError: `path` holds something else.
    """
    network = PolicyNetwork(policy_spec(config), key("export"))
    network.load_state_dict(weights)
    met, (mean, low, high) = world.met(), last_rewards(rows)
    score = {"suite": "meta_train", "metric": "reward_of_sampled_actions", "value": mean, "low": low, "high": high}
    policy_artifact(
        config.artifact_name,
        network,
        limits={"needs_total_steps": True, "max_lr": config.outer.highest_lr},
        training={
            "config_hash": config.hash,
            "distribution": [entry.model_dump(mode="json") for entry in config.tasks],
            "task_hashes": list(met.task_hashes),
            "seeds": [config.seed],
            "outer_steps": len(rows),
            "inner_steps": sum(row["inner_steps"] for row in rows),
            "device_hours": device_hours,
            "support": dict(met.support),
        },
        scores=[score] if all(map(math.isfinite, (mean, low, high))) else [],
    ).save(path)
