"""The whole state of policy training between two outer steps, as the files of a checkpoint and back."""

from dataclasses import dataclass, field
from typing import Any

from metaopt.config import PolicyConfig
from metaopt.outer.blobs import from_blob, from_json, from_torch, to_blob, to_json, to_torch
from metaopt.outer.checkpoint import Checkpoint

__all__ = ["PolicySnapshot"]


@dataclass
class PolicySnapshot:
    """State after `step` outer steps.

    Attributes:
        step: outer steps done.
        ppo: state of the policy (buffers of its normaliser included), the critic, Adam, and the running mean of policies.
        stages: where the curriculum is.
        collector: what collection has issued, and what is under way.
        totals: counters over the run (inner steps, skipped outer steps, ...).
        rows: committed rows of metrics and timing.
    """

    step: int
    ppo: dict[str, Any]
    stages: dict[str, Any]
    collector: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def files(self, config: PolicyConfig) -> dict[str, bytes]:
        """Return the files of a checkpoint; equal states give equal bytes."""
        return {
            "theta.safetensors": to_blob(self.ppo["network"]),
            "critic.safetensors": to_blob(self.ppo["critic"]),
            "average.safetensors": to_blob(self.ppo["average"]),
            "outer.pt": to_torch(self.ppo["optimizer"]),
            # Every draw is a function of the seed and counters, so that this is the whole state of randomness.
            "rng.json": to_json({"seed": config.seed, "outer_step": self.step}),
            "pending.json": to_json({"stages": self.stages, "collector": self.collector, "totals": self.totals}),
            # Rows of timing.jsonl depend on the clock, their number does not.
            "metrics.json": to_json(self.rows),
        }

    @staticmethod
    def read(checkpoint: Checkpoint) -> "PolicySnapshot":
        """Return the state in a checkpoint.

        Raises:
            CorruptCheckpointError: a file is missing or damaged.
        """
        ppo: dict[str, Any] = {
            name: from_blob(checkpoint.read(f"{file}.safetensors"))
            for name, file in (("network", "theta"), ("critic", "critic"), ("average", "average"))
        }
        ppo["optimizer"] = from_torch(checkpoint.read("outer.pt"))
        pending = from_json(checkpoint.read("pending.json"))
        return PolicySnapshot(
            step=checkpoint.step,
            ppo=ppo,
            stages=pending["stages"],
            collector=pending["collector"],
            totals=pending["totals"],
            rows=from_json(checkpoint.read("metrics.json")),
        )
