"""Learners that look at all tensors at once: what Schedule-Free, Prodigy and L-BFGS share.

An update rule sees one tensor; these need a second point, a number about the whole model, or a history of steps. They are pure pairs
(`init`, `advance`) like any learner, run under `torch.func.vmap`, and take hyperparameters from theta where it has them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from metaopt.learners.learner import SCHEDULES, Carry, Schedule, StepRecord, schedule_factor
from metaopt.learners.update_rules.rule import Hyper, Theta
from metaopt.tasks.task import Batch, Params, Task

__all__ = ["Hypers", "WholeModelLearner", "WholeState"]

Hypers = dict[str, Any]  # each a float, or a 0-d tensor from theta
WholeState = dict[str, Any]


@dataclass(frozen=True)
class WholeModelLearner(ABC):
    """A hand-made optimizer as a learner; float fields of a subclass are its hyperparameters, `lr` among them.

    Attributes:
        name: of the optimizer.
        schedule: factor of the step size over the task's horizon.
    """

    name: ClassVar[str]
    schedule: Schedule = SCHEDULES["constant"]

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Values of the float fields by name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, float)}

    def init_theta(self, seed: int) -> Theta:
        """Return the empty dict."""
        return {}

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return `params`, `state`, the step counter `t`, and the task's `gradient_state` if it has any."""
        params = task.init(key)
        state = self.init_state(self.hypers(theta), params)
        carry = {"params": params, "state": state, "t": torch.zeros((), dtype=torch.int64, device=key.device)}
        noise = task.gradient_state(params)
        return {**carry, "gradient_state": noise} if noise else carry

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one update, and the loss before it at `params`, wherever the gradient is taken."""
        h, params, t = self.hypers(theta), carry["params"], carry["t"]
        point = self.gradient_point(h, params, carry["state"])
        grads, loss, noise = task.gradients(point, batch, carry.get("gradient_state", {}))
        if point is not params:
            loss = task.loss(params, batch)
        lr = h["lr"] * schedule_factor(self.schedule, t, task.horizon)
        scales = {name: task.step_scales.get(name, 1.0) for name in params}
        params, state = self.update(h, params, grads, carry["state"], t, lr, scales)
        after = {"params": params, "state": state, "t": t + 1}
        return {**after, "gradient_state": noise} if noise else after, StepRecord(loss)

    def hypers(self, theta: Theta) -> Hypers:
        """Return the hyperparameters, theta's entries first."""
        return {**self.hyperparameters, **theta}

    @abstractmethod
    def init_state(self, h: Hypers, params: Params) -> WholeState:
        """Return the state before the first update."""

    def gradient_point(self, h: Hypers, params: Params, state: WholeState) -> Params:
        """Return where gradients are taken; `params` itself unless a subclass says otherwise."""
        return params

    @abstractmethod
    def update(
        self, h: Hypers, params: Params, grads: Params, state: WholeState, t: Tensor, lr: Hyper, scales: dict[str, float]
    ) -> tuple[Params, WholeState]:
        """Return (params, state) after one update.

        Args:
            h: hyperparameters.
            params, grads: by name; the gradients are those at `gradient_point`.
            state: as `init_state` or the last call returned it.
            t: 0-d, updates made so far.
            lr: scheduled step size.
            scales: the task's factor of it for each parameter.
        """
