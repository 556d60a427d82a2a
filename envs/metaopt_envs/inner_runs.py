"""Inner runs of one shape between two decisions: one tensor program advances all of them.

Legend: E runs, D weights, S = 13 statistics, K = 8 knobs.
"""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from metaopt.inner.step import fresh_carries, training_batches
from metaopt.learners.learner import Carry
from metaopt.learners.policies.controlled import ControlledLearner, flat, forget_steps
from metaopt.learners.policies.knobs import KNOBS
from metaopt.tasks.halves import Half, half_of
from metaopt.tasks.task import Batch, Numbers, Params, Program, Task, stack_tasks
from metaopt_envs.recorded import RecordedStep, recorded_step

__all__ = ["InnerRuns", "choose"]

_AHEAD_BYTES = 32 << 20  # of batches that are drawn in one go
_AHEAD_STEPS = 32


class InnerRuns:
    """E inner runs of tasks of one program, with knobs of their own.

    Args:
        tasks: E tasks of one program.
        seeds: E seeds, 63-bit; initial weights and batches are functions of them.
        inner: the inner optimizer, see `ControlledLearner`.

    Attributes:
        step: inner steps made.
    """

    def __init__(self, tasks: Sequence[Task], seeds: Sequence[int], inner: str) -> None:
        self.stacked = stack_tasks(tasks)
        self.keys = torch.tensor(list(seeds), dtype=torch.int64)
        self.step = 0
        self._learners = {measure: ControlledLearner(inner, measure) for measure in (False, True)}
        theta = {"values": torch.zeros(len(seeds), len(KNOBS), dtype=torch.float64)}  # the start does not depend on it
        self.carry: Carry = fresh_carries(self._learners[False], theta, self.stacked, self.keys, True)
        self._steps: dict[bool, RecordedStep] = {}
        self._ahead: Batch = {}
        self._from = 0
        self._ahead_steps = _AHEAD_STEPS

    def advance(self, values: Tensor, until: int, measured: Collection[int]) -> None:
        """Make the steps up to inner step `until` with knobs [E, K]; those in `measured` (0 is the first one of the run) are measured."""
        theta = {"values": values}
        while self.step < until:
            measures, batch = self.step in measured, self._batch()
            if measures not in self._steps:
                self._steps[measures] = recorded_step(self._learners[measures], self.stacked, theta, self.carry, batch)
            self.carry = self._steps[measures](theta, self.carry, batch)
            self.step += 1

    def _batch(self) -> Batch:
        place = self.step - self._from
        if not self._ahead or place >= self._ahead_steps:
            clock = torch.full_like(self.keys, self.step)
            if not self._ahead:
                one = training_batches(self.stacked, self.keys, clock, 1)
                size = sum(value.numel() * value.element_size() for value in one.values())
                self._ahead_steps = max(1, min(_AHEAD_STEPS, _AHEAD_BYTES // max(1, size)))
            self._ahead, self._from, place = training_batches(self.stacked, self.keys, clock, self._ahead_steps), self.step, 0
        return {name: value[place] for name, value in self._ahead.items()}

    def seen(self) -> tuple[Tensor, Tensor]:
        """Return the mean statistics [E, S] (NaN if no step was measured) and the mean raw training loss [E] since the last call."""
        seen = self.carry["seen"]
        self.carry = forget_steps(self.carry)
        unmeasured = (seen["measured"] == 0).unsqueeze(1)
        return torch.where(unmeasured, torch.nan, seen["mean"]), seen["loss"]

    def heldout(self, half: Half) -> tuple[Tensor, Tensor]:
        """Return the raw and the normalised loss [E] on a half of the held-out examples, without cap."""
        stacked = self.stacked
        found: tuple[Tensor, Tensor] = _heldout(stacked.program, half)(stacked.numbers, stacked.shared, self.carry["params"], self.keys)
        return found

    def weights(self) -> Tensor:
        """Return the weights [E, D], a copy."""
        return vmap(flat)(self.carry["params"])

    def copy(self) -> dict[str, Any]:
        """Return what a register holds: weights and the optimizer's state."""
        kept: dict[str, Any] = tree_map(torch.clone, {name: self.carry[name] for name in ("params", "state")})
        return kept

    def restore(self, saved: dict[str, Any], chosen: Tensor) -> None:
        """Put back what `copy` returned where `chosen` [E] is True. Steps are not given back, and batches go on with new ones."""
        self.carry = {**self.carry, **choose(chosen, saved, {name: self.carry[name] for name in saved})}


def choose(chosen: Tensor, one: Any, other: Any) -> Any:
    """Return trees of stacked tensors with the rows of `one` where `chosen` [E] is True, else those of `other`."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(chosen.reshape(-1, *[1] * (a.dim() - 1)), a, b)

    return tree_map(pick, one, other)


@cache
def _heldout(program: Program, half: Half) -> Any:
    """Return (numbers, shared, params, keys) -> (raw, normalised) losses [E]."""

    def one(numbers: Numbers, shared: Batch, params: Params, key: Tensor) -> tuple[Tensor, Tensor]:
        task = Task(program, numbers, shared)
        raw = task.loss(params, half_of(program, task.heldout(key, torch.zeros_like(key)), half))
        return raw, program.normalise(numbers, raw)

    return torch.no_grad()(vmap(one, in_dims=(0, None, 0, 0)))
