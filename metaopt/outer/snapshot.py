"""The whole state of a meta-training run between two outer steps, as the files of a checkpoint and back."""

from dataclasses import dataclass, field
from typing import Any

from metaopt.config import Config
from metaopt.learners.update_rules import Theta
from metaopt.outer.blobs import from_blob, from_json, from_torch, to_blob, to_json, to_torch
from metaopt.outer.checkpoint import Checkpoint

__all__ = ["Snapshot"]


@dataclass
class Snapshot:
    """State after `step` outer steps.

    Attributes:
        step: outer steps done.
        theta: meta-parameters.
        outer: state of the outer update.
        after: outer step of each shard's last estimate, None before its first.
        shards: state of each shard; None for one that never ran.
        quarantined: shards given up.
        totals: counters over the run (inner steps, skipped outer steps, ...).
        rows: committed rows of metrics and timing.
        costs: record of the families' costs that the run began with; empty where nothing needs them, as in checkpoints of schema 1.
        average: state of theta's running mean; None without one, as in checkpoints of schema 1.
        selection: state of what validation chose so far; None without validation, as in checkpoints of schema 1.
    """

    step: int
    theta: Theta
    outer: dict[str, Any]
    after: list[int | None]
    shards: list[dict[str, Any] | None]
    quarantined: list[int] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    costs: dict[str, int] = field(default_factory=dict)
    average: dict[str, Any] | None = None
    selection: dict[str, Any] | None = None

    def files(self, config: Config) -> dict[str, bytes]:
        """Return the files of a checkpoint; equal states give equal bytes."""
        particles = {f"particles-{i}.safetensors": to_blob(state) for i, state in enumerate(self.shards) if state is not None}
        optional = {"average": self.average, "selection": self.selection}
        blobs = {f"{name}.safetensors": to_blob(state) for name, state in optional.items() if state is not None}
        pending = {"after": self.after, "quarantined": self.quarantined, "totals": self.totals, "costs": self.costs}
        return {
            "theta.safetensors": to_blob(self.theta),
            "outer.pt": to_torch(self.outer),
            # Every draw is a function of the seed and a counter, so that this is the whole state of randomness.
            "rng.json": to_json({"seed": config.seed, "outer_step": self.step}),
            "pending.json": to_json(pending),
            # Rows of timing.jsonl depend on the clock, their number does not.
            "metrics.json": to_json(self.rows),
            **blobs,
            **particles,
        }

    @staticmethod
    def read(checkpoint: Checkpoint) -> "Snapshot":
        """Return the state in a checkpoint.

        Raises:
            CorruptCheckpointError: a file is missing or damaged.
        """

        def optional(name: str) -> dict[str, Any] | None:
            return from_blob(checkpoint.read(name)) if name in checkpoint.names else None

        pending = from_json(checkpoint.read("pending.json"))
        after = pending["after"]
        shards = [None if step is None else from_blob(checkpoint.read(f"particles-{i}.safetensors")) for i, step in enumerate(after)]
        return Snapshot(
            step=checkpoint.step,
            theta=from_blob(checkpoint.read("theta.safetensors")),
            outer=from_torch(checkpoint.read("outer.pt")),
            after=after,
            shards=shards,
            quarantined=pending["quarantined"],
            totals=pending["totals"],
            rows=from_json(checkpoint.read("metrics.json")),
            costs=pending.get("costs", {}),
            average=optional("average.safetensors"),
            selection=optional("selection.safetensors"),
        )
