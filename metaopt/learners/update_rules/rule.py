"""The contract of an update rule, and the one place where a rule's output changes a parameter.

Meta-training calls `apply_rule` under `torch.func.vmap` over particles, the drop-in optimizer over tensors of one shape.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Hyper", "State", "Theta", "UpdateRule", "apply_rule", "fresh_state", "hyper"]

Theta = dict[str, Tensor]
State = dict[str, Tensor]
Hyper = Tensor | float


class UpdateRule(Protocol):
    """A rule that turns a gradient into a direction, tensor by tensor (rank 0 to 4), without side effects.

    Optional: `init_embedding_state(param)`, for a rule that treats embeddings (matrices whose rows are looked up) in another way. Its
    state, which must have other keys, is how `update` knows one.

    Attributes:
        name: registry name.
        hyperparameters: default values by name; an entry of the same name in theta takes precedence, which is how rates are swept under
            vmap and differentiated. `lr` is the step size, by which the caller multiplies the direction.
    """

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Default values by name."""

    def init_theta(self, seed: int) -> Theta:
        """Return the initial meta-parameters, float32; empty for a classic rule."""

    def init_state(self, param: Tensor) -> State:
        """Return the accumulators of one parameter tensor before the first update, in its dtype."""

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (direction, state). `t` is a 0-d tensor that counts updates; the first one sees 0. The caller subtracts lr * direction."""


def fresh_state(rule: UpdateRule, param: Tensor, embedding: bool = False) -> State:
    """Return the rule's accumulators of a parameter before the first update; most rules treat an embedding as any matrix."""
    own: Callable[[Tensor], State] | None = getattr(rule, "init_embedding_state", None)
    return rule.init_state(param) if own is None or not embedding else own(param)


def hyper(rule: UpdateRule, theta: Theta, name: str) -> Hyper:
    """Return a hyperparameter: theta's entry if there is one, else the rule's own value."""
    return theta[name] if name in theta else rule.hyperparameters[name]


def apply_rule(
    rule: UpdateRule, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor, lr: Hyper, weight_decay: Hyper = 0.0
) -> tuple[Tensor, State]:
    """Return (new parameter, new state): param - lr * (direction + weight_decay * param).

    A step size of exactly 0 returns the parameter bit for bit, whatever the direction (it may be non-finite).

    Args:
        rule: any update rule.
        theta: its meta-parameters.
        param, grad: one tensor each, equal shapes.
        state: as `rule.init_state` or the last call returned it.
        t: 0-d, updates made so far.
        lr: step size, number or 0-d tensor.
        weight_decay: decoupled decay, in units of the step.
    """
    direction, new_state = rule.update(theta, param, grad, state, t)
    step = lr * (direction + weight_decay * param)
    return torch.where(torch.as_tensor(lr, device=param.device) == 0, param, param - step), new_state
