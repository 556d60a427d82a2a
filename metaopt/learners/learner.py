"""The pair of pure functions that every learner is, whatever its kind, and the learner that update rules make.

`init` and `advance` run under `torch.func.vmap` over particles. The task is passed to both: it is constant over a run, so that a carry
holds only what changes.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from metaopt.errors import ConfigError, TaskError
from metaopt.learners.update_rules import Theta, UpdateRule, apply_rule, fresh_state, hyper
from metaopt.names import nearest
from metaopt.tasks.task import Batch, GradientState, Task

__all__ = ["SCHEDULES", "Carry", "GradientLearner", "Learner", "Schedule", "StepRecord", "named_schedule", "schedule_factor"]

Carry = dict[str, Any]


class StepRecord(NamedTuple):
    """What one step tells: the raw loss [] on the batch, before learning from it."""

    loss: Tensor


class Learner(Protocol):
    """A learner of any kind, hashable; its meta-parameters are `theta`, possibly empty.

    Optional: `vectorised = False`, for one that vmap cannot trace; `inner.run` then takes its particles one after another.
    """

    def __hash__(self) -> int: ...

    def init_theta(self, seed: int) -> Theta:
        """Return the meta-parameters that meta-training starts from."""

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return the carry (nested dicts of tensors) of a fresh inner run; all randomness comes from the key."""

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one inner step on a batch, and the step's record. Consumes no randomness."""


@dataclass(frozen=True)
class Schedule:
    """Warm-up, a stable part and a decay, as fractions of the horizon. `Schedule()` is constant.

    Attributes:
        warmup_frac: linear warm-up over this fraction of the horizon, [0, 1).
        final_frac: factor at the horizon and after it, [0, 1]; 1 is constant. An inverse square root stops falling there, if it gets there.
        decay: shape of the way down.
        stable_frac: fraction of the horizon between warm-up and decay, at factor 1, [0, 1 - warmup_frac].
    """

    warmup_frac: float = 0.0
    final_frac: float = 1.0
    decay: Literal["cosine", "linear", "inverse_sqrt"] = "cosine"
    stable_frac: float = 0.0


# Source of `wsd`: Hägele et al., 2024, "Scaling laws and compute-optimal training beyond fixed training durations" (a linear cool-down over
# the last fifth); of `inverse_sqrt`: Vaswani et al., 2017, "Attention is all you need", equation (3).
SCHEDULES = {
    "constant": Schedule(),
    "warmup_cosine": Schedule(0.05, 0.0),
    "warmup": Schedule(0.05, 1.0),
    "wsd": Schedule(0.05, 0.0, "linear", stable_frac=0.75),
    "inverse_sqrt": Schedule(0.05, 0.0, "inverse_sqrt"),
}


def schedule_factor(schedule: Schedule, t: Tensor, horizon: Tensor | float) -> Tensor:
    """Return the factor of the step size at update t (0-d, the first one is 0) of `horizon`; float32 unless horizon is a tensor."""
    steps = torch.as_tensor(horizon, device=t.device).to(torch.get_default_dtype() if not isinstance(horizon, Tensor) else horizon.dtype)
    t = t.to(steps.dtype)
    warmup = schedule.warmup_frac * steps
    rising = (t + 1) / warmup.clamp(min=1.0)
    start = warmup + schedule.stable_frac * steps
    if schedule.decay == "inverse_sqrt":
        start = start.clamp(min=1.0)
        falling = torch.sqrt(start / torch.maximum(t + 1, start)).clamp(min=schedule.final_frac)
    else:
        progress = ((t - start) / (steps - start).clamp(min=1.0)).clamp(0.0, 1.0)
        left = 0.5 * (1.0 + torch.cos(math.pi * progress)) if schedule.decay == "cosine" else 1.0 - progress
        falling = schedule.final_frac + (1.0 - schedule.final_frac) * left
    return torch.minimum(rising, falling) if schedule.warmup_frac > 0 else falling


@dataclass(frozen=True)
class GradientLearner:
    """A learner that takes the task's gradient on each batch and applies an update rule to every tensor.

    Attributes:
        rule: the update rule; its `lr` hyperparameter (or theta's entry `lr`) is the step size.
        schedule: factor of the step size over the task's horizon.
        weight_decay: decoupled decay in units of the step; classic rules have their own hyperparameter for it.
    """

    rule: UpdateRule
    schedule: Schedule = SCHEDULES["constant"]
    weight_decay: float = 0.0

    def init_theta(self, seed: int) -> Theta:
        """Return the rule's initial meta-parameters."""
        return self.rule.init_theta(seed)

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return `params`, the rule's `state` for each of them, the step counter `t`, and the task's `gradient_state` if it has any.

        Raises:
            TaskError: the task's `step_scales` or `embeddings` name a parameter that it does not have.
        """
        params = task.init(key)
        for what, names in (("step_scales", task.step_scales.keys()), ("embeddings", task.embeddings)):
            if unknown := sorted(names - params.keys()):
                raise TaskError(f"task {what} names {unknown[0]!r}, which is no parameter{nearest(unknown[0], params)}")
        state = {name: fresh_state(self.rule, param, name in task.embeddings) for name, param in params.items()}
        carry = {"params": params, "state": state, "t": torch.zeros((), dtype=torch.int64, device=key.device)}
        return carry | _if_any(task.gradient_state(params))

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one update on the batch, and the loss before it."""
        params, t = carry["params"], carry["t"]
        grads, loss, gradient_state = task.gradients(params, batch, carry.get("gradient_state", {}))
        lr = hyper(self.rule, theta, "lr") * schedule_factor(self.schedule, t, task.horizon)
        scales = task.step_scales
        new_params, new_state = {}, {}
        for name, param in params.items():
            size = lr * scales[name] if name in scales else lr
            new_params[name], new_state[name] = apply_rule(
                self.rule, theta, param, grads[name], carry["state"][name], t, size, self.weight_decay
            )
        return {"params": new_params, "state": new_state, "t": t + 1} | _if_any(gradient_state), StepRecord(loss)


def _if_any(state: GradientState) -> Carry:
    return {"gradient_state": state} if state else {}


def named_schedule(name: str) -> Schedule:
    """Return a schedule by name.

    Raises:
        ConfigError: no such schedule.
    """
    if name not in SCHEDULES:
        raise ConfigError(f"schedule {name!r} is unknown{nearest(name, SCHEDULES)}")
    return SCHEDULES[name]
