"""An inner run whose hyperparameters come from outside at every step, and which measures itself.

Whoever holds the knobs (an environment, a policy, a test) puts them into theta: `{"values": [8]}` in the order of `knobs.KNOBS`, one row
a run where theta is stacked. The learner neither knows when decisions are made nor who makes them.

AdamW runs on one flat vector of all weights: with some thousand weights a step is a dozen small operations instead of a dozen for each
tensor. UnitlessAdam looks at tensors, and runs on each of them.

Legend: D weights of the model, S = 13 statistics, K = 8 knobs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.learner import Carry, StepRecord
from metaopt.learners.policies.knobs import KNOBS, start_values
from metaopt.learners.policies.unitless import STATISTICS, StepMean, add_step, traced_statistics
from metaopt.learners.policies.unitless_adam import Hyperparameters, UnitlessState, unitless_start, unitless_step
from metaopt.learners.update_rules import Theta
from metaopt.names import nearest
from metaopt.tasks.task import Batch, Params, Task

__all__ = ["INNER", "ControlledLearner", "flat", "forget_steps"]

INNER = ("adamw", "unitless_adam")


@dataclass(frozen=True)
class ControlledLearner:
    """AdamW or UnitlessAdam with the knobs in theta.

    The carry holds `params`, the optimizer's state, and what was seen since the last `forget_steps`: the mean statistics and the mean
    training loss.

    Attributes:
        inner: one of `INNER`. AdamW has the knobs lr, weight_decay, epsilon, one_minus_beta2 and one_minus_beta1, and ignores the others.
        measure: whether steps are measured; two learners that differ in nothing else have the same carry, so that a runner may take
            turns.

    Raises:
        ConfigError: no such inner optimizer.
    """

    inner: str = "adamw"
    measure: bool = False

    def __post_init__(self) -> None:
        if self.inner not in INNER:
            raise ConfigError(f"inner optimizer {self.inner!r} is unknown{nearest(self.inner, INNER)}")

    def init_theta(self, seed: int) -> Theta:
        """Return the knobs' published starts."""
        return {"values": start_values()}

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return the carry of a fresh run."""
        params = task.init(key)
        weights = flat(params)
        zero = weights.new_zeros(())
        carry: Carry = {"params": params, "state": _adamw_start(weights) if self.inner == "adamw" else unitless_start(params)}
        carry["seen"] = {
            "mean": weights.new_zeros(len(STATISTICS)),
            "measured": torch.zeros((), dtype=torch.int64, device=weights.device),
            "loss": zero,
            "steps": zero.clone(),
        }
        gradient_state = task.gradient_state(params)
        return carry | ({"gradient_state": gradient_state} if gradient_state else {})

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one step at the knobs in theta, and the loss before it."""
        params = carry["params"]
        grads, loss, gradient_state = task.gradients(params, batch, carry.get("gradient_state", {}))
        step = _adamw if self.inner == "adamw" else _unitless
        new_params, state, parts = step(theta["values"], task, params, grads, carry["state"])
        seen = carry["seen"]
        steps = seen["steps"] + 1
        new_seen = {**seen, "loss": seen["loss"] + (loss - seen["loss"]) / steps, "steps": steps}
        if self.measure:
            mean = add_step(StepMean(seen["mean"], seen["measured"]), traced_statistics(*parts))
            new_seen |= {"mean": mean.mean, "measured": mean.steps}
        new: Carry = {"params": new_params, "state": state, "seen": new_seen}
        return new | ({"gradient_state": gradient_state} if gradient_state else {}), StepRecord(loss)


def forget_steps(carry: Carry) -> Carry:
    """Return the carry (stacked or not) with nothing seen yet: what a decision does once it has looked."""
    return {**carry, "seen": {name: torch.zeros_like(value) for name, value in carry["seen"].items()}}


def flat(params: Params) -> Tensor:
    """Return all weights as one vector [D], in the order of the dict."""
    return torch.cat([value.reshape(-1) for value in params.values()])


class _Parts(NamedTuple):
    """What the statistics need, tensor by tensor."""

    grads: Sequence[Tensor]
    momenta: Sequence[Tensor]
    denominators: Sequence[Tensor]
    eps: Sequence[Tensor]
    updates: Sequence[Tensor]
    params: Sequence[Tensor]
    rates: Sequence[Tensor]
    clip: Tensor | float


def _knob(values: Tensor, name: str, like: Tensor) -> Tensor:
    return values[KNOBS.index(name)].to(like.dtype)


def _adamw_start(weights: Tensor) -> dict[str, Tensor]:
    zero = weights.new_zeros(())
    return {"m": torch.zeros_like(weights), "v": torch.zeros_like(weights), "ones1": zero, "ones2": zero.clone()}


def _adamw(values: Tensor, task: Task, params: Params, grads: Params, state: dict[str, Tensor]) -> tuple[Params, dict[str, Tensor], _Parts]:
    """Source: Loshchilov, Hutter, 2019, "Decoupled weight decay regularization". Differs: corrections stay exact when betas change."""
    weights, grad = flat(params), flat(grads)
    lr, decay, eps, rest2, rest1 = (_knob(values, name, weights) for name in KNOBS[:5])
    m = state["m"] + rest1 * (grad - state["m"])
    v = state["v"] + rest2 * (grad * grad - state["v"])
    # The same averages of the constant 1: what the zeros that they began with leave of a value, without cancellation.
    ones1, ones2 = state["ones1"] + rest1 * (1 - state["ones1"]), state["ones2"] + rest2 * (1 - state["ones2"])
    momentum, denominator = m / ones1, (v / ones2).sqrt()
    update = momentum / (denominator + eps) + decay * weights
    sizes = [value.numel() for value in params.values()]
    rates = [lr * task.step_scales.get(name, 1.0) for name in params]
    rate = torch.cat([one.expand(size) for one, size in zip(rates, sizes, strict=True)]) if task.step_scales else lr
    new = weights - rate * update
    pieces = [torch.split(x, sizes) for x in (grad, momentum, denominator, update, weights)]
    parts = _Parts(pieces[0], pieces[1], pieces[2], [eps] * len(sizes), pieces[3], pieces[4], rates, 1.0)
    new_params = {name: piece.reshape(params[name].shape) for name, piece in zip(params, torch.split(new, sizes), strict=True)}
    return new_params, {"m": m, "v": v, "ones1": ones1, "ones2": ones2}, parts


def _unitless(values: Tensor, task: Task, params: Params, grads: Params, state: UnitlessState) -> tuple[Params, UnitlessState, _Parts]:
    moved, new_state, parts = unitless_step(params, grads, state, Hyperparameters(*values.unbind()))
    if task.step_scales:  # a factor of the rate; what the statistics call the rate stays that of the knob
        moved = {name: params[name] + task.step_scales.get(name, 1.0) * (value - params[name]) for name, value in moved.items()}
    seen = _Parts(*parts[:3], parts.eps.unbind(), *parts[4:6], parts.rates.unbind(), parts.clip)
    momentum, largest = ({name: by_name[name] for name in params} for by_name in new_state[:2])  # a carry keeps its order of entries
    return {name: moved[name] for name in params}, new_state._replace(momentum=momentum, largest=largest), seen
