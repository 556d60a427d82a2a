"""The contract of a rule that sees all tensors of a model, and the one place where its output changes parameters.

An `UpdateRule` sees one tensor. A model rule may also use what the whole model tells (a maximum over its tensors, a buffer of losses), the
loss of the batch, and how much of the run is over.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import torch
from torch import Tensor

from metaopt.learners.update_rules.rule import Hyper, State, Theta

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["ModelRule", "ModelState", "apply_model_rule", "is_model_rule"]

Params = dict[str, Tensor]


class ModelState(TypedDict):
    """What a model rule remembers.

    Attributes:
        tensors: accumulators of each parameter, by the parameter's name.
        shared: what belongs to the whole model, e.g. a buffer of losses; possibly empty.
    """

    tensors: dict[str, State]
    shared: State


class ModelRule(Protocol):
    """A rule that turns the gradients of a model into directions, all tensors (rank 0 to 4) together, without side effects.

    Names only tell tensors apart: other names, or another order, give the same directions. A tensor of shape [] counts as one of shape [1].

    Attributes:
        name: registry name.
        hyperparameters: default values by name, theta's entry first; `lr` is the step size, by which the caller multiplies directions.
        needs_loss: whether `update` reads the loss.
        needs_horizon: whether `update` reads the length of the run; such a rule has a schedule of its own.
    """

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Default values by name."""

    @property
    def needs_loss(self) -> bool:
        """Whether `update` reads the loss."""

    @property
    def needs_horizon(self) -> bool:
        """Whether `update` reads the length of the run."""

    def init_theta(self, seed: int) -> Theta:
        """Return the initial meta-parameters, float32."""

    def init_state(self, theta: Theta, params: Params) -> ModelState:
        """Return the state before the first update, in the dtype of the parameters.

        A tensor's part must not depend on the other tensors, nor the shared part on any, so that parameters can join later. Nothing
        depends on the horizon, which users may change during a run.
        """

    def update(
        self, theta: Theta, params: Params, grads: Params, state: ModelState, t: Tensor, loss: Tensor | None, horizon: Tensor | None
    ) -> tuple[Params, ModelState]:
        """Return (directions by name, state).

        Args:
            theta: meta-parameters.
            params, grads: by name, of one dtype, the same names.
            state: as `init_state` or the last call returned it, for these names.
            t: 0-d int64, updates made so far, [0, horizon].
            loss: 0-d, raw, of this batch before the step; None unless `needs_loss`.
            horizon: 0-d, inner steps of the run, >= 1; None unless `needs_horizon`.
        """


def is_model_rule(rule: Any) -> "TypeIs[ModelRule]":
    """Return whether a rule, or the class of one, sees all tensors (otherwise it is an `UpdateRule`)."""
    return hasattr(rule, "needs_horizon")


def apply_model_rule(
    rule: ModelRule,
    theta: Theta,
    params: Params,
    grads: Params,
    state: ModelState,
    t: Tensor,
    lr: Mapping[str, Hyper] | Hyper,
    weight_decay: Mapping[str, Hyper] | Hyper = 0.0,
    loss: Tensor | None = None,
    horizon: Tensor | None = None,
) -> tuple[Params, ModelState]:
    """Return (new parameters, new state): param - lr * (direction + weight_decay * param) for every tensor.

    A step size of exactly 0 returns the parameter bit for bit, whatever the direction (it may be non-finite). Past the end of the run
    the rule stays at its end: it sees t = horizon.

    Args:
        rule: any model rule.
        theta: its meta-parameters.
        params, grads: by name; one dtype, which loss and horizon are cast to.
        state: as `rule.init_state` or the last call returned it.
        t: 0-d, updates made so far.
        lr: step size, number or 0-d tensor, of all tensors or by name.
        weight_decay: decoupled decay in units of the step, as `lr`.
        loss, horizon: 0-d tensors; may be None for a rule that does not read them, and are kept from it.
    """
    dtype = next(iter(params.values())).dtype
    loss = loss.to(dtype) if rule.needs_loss and loss is not None else None
    if horizon is not None and rule.needs_horizon:
        t = torch.minimum(t, horizon.to(t.dtype))
    horizon = horizon.to(dtype) if rule.needs_horizon and horizon is not None else None
    directions, new_state = rule.update(theta, params, grads, state, t, loss, horizon)
    new_params = {}
    for name, param in params.items():
        size = lr[name] if isinstance(lr, Mapping) else lr
        decay = weight_decay[name] if isinstance(weight_decay, Mapping) else weight_decay
        step = size * (directions[name] + decay * param)
        new_params[name] = torch.where(torch.as_tensor(size, device=param.device) == 0, param, param - step)
    return new_params, new_state
