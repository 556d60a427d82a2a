"""Workers that behave and misbehave on demand; importable by name, so that Ray's processes find them."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaopt.cluster import Reason, StateMissing, WorkItem


@dataclass
class Accumulator:
    """Holds one running sum a shard: what it answers depends on every item before. Faults are named in the payload."""

    sums: dict[int, tuple[int, Tensor]] = field(default_factory=dict)

    def handle(self, item: WorkItem) -> dict[str, Any]:
        payload = item.payload
        once = payload.get("fault") if not _seen(payload.get("marker")) else None
        if once == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if once == "raise" or payload.get("always") == "raise":
            raise ArithmeticError(f"planted in item {item.work_id}")
        if payload.get("always") == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if payload.get("always") == "missing":
            raise StateMissing("never there")
        if payload.get("always") == "unserialisable":
            return {"value": (entry for entry in ())}
        if "snapshot" in payload:
            self.sums[item.work_id] = (payload["snapshot"][0], payload["snapshot"][1])
        if item.outer_step == 0:
            self.sums[item.work_id] = (-1, torch.zeros(1000))
        step, total = self.sums.get(item.work_id, (None, None))
        if step != item.outer_step - 1:
            raise StateMissing(f"shard {item.work_id} is at {step}, needed {item.outer_step - 1}")
        theta = payload["theta"].get()
        total = total * 1.01 + theta * (item.work_id + 1)
        self.sums[item.work_id] = (item.outer_step, total)
        return {"sum": total.sum(), "total": total, "threads": torch.get_num_threads(), "pid": os.getpid()}


@dataclass(frozen=True)
class AccumulatorSetup:
    def build(self) -> Accumulator:
        return Accumulator()


@dataclass(frozen=True)
class FailingSetup:
    """Raises what it is given when built."""

    error: Exception

    def build(self) -> Accumulator:
        raise self.error


@dataclass
class Driver:
    """A small trainer: knows every shard's state before each step, so it can answer `recover`."""

    shards: int
    states: dict[int, tuple[int, Tensor]] = field(default_factory=dict)
    reasons: list[tuple[int, Reason]] = field(default_factory=list)

    def items(self, step: int, theta: Any, extra: Mapping[int, Mapping[str, Any]] | None = None) -> list[WorkItem]:
        return [WorkItem(step, shard, 0, {"theta": theta, **(extra or {}).get(shard, {})}) for shard in range(self.shards)]

    def recover(self, item: WorkItem, reason: Reason) -> WorkItem | None:
        self.reasons.append((item.work_id, reason))
        snapshot = {"snapshot": self.states[item.work_id]} if item.work_id in self.states else {}
        return replace(item, attempt=item.attempt + 1, payload={**item.payload, **snapshot})

    def step(self, pool: Any, step: int, extra: Mapping[int, Mapping[str, Any]] | None = None) -> list[Any]:
        theta = torch.linspace(0.0, 1.0 + step, 1000)
        results = pool.run(self.items(step, pool.share(theta), extra), self.recover)
        for result in results:
            if result.error is None:
                self.states[result.item.work_id] = (step, result.value["total"])
        return results


def _seen(marker: str | None) -> bool:
    """Return whether the fault of this marker has happened, and enter that it has."""
    if marker is None:
        return False
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return True
    return False
