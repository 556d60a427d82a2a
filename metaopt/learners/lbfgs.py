"""L-BFGS with a fixed step size: for tasks whose every batch is the whole data.

Legend: H remembered steps, D weights of the whole model.

Source: Liu, Nocedal, 1989, "On the limited memory BFGS method for large scale optimization", algorithm 2.1, as in `torch.optim.LBFGS`
with `max_iter=1` and without a line search: one gradient a step, like every other learner.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from metaopt.learners.update_rules.classic import Size
from metaopt.learners.update_rules.rule import Hyper
from metaopt.learners.whole_model import Hypers, WholeModelLearner, WholeState
from metaopt.tasks.task import Params

__all__ = ["LBFGS"]

_SMALLEST_GRADIENT = 1e-7  # below it in every weight a step changes nothing
_SMALLEST_DESCENT = 1e-9  # along a direction, below which no step is made
_SMALLEST_CURVATURE = 1e-10  # of a step that is remembered


def _flat(tensors: Params) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


@dataclass(frozen=True)
class LBFGS(WholeModelLearner):
    """Limited-memory BFGS; a task's step scales do not concern it, since curvature sets the size of its steps.

    Attributes:
        history: remembered steps.
    """

    name: ClassVar[str] = "lbfgs"
    lr: Size = 1.0
    history: Annotated[int, Ge(1)] = 10

    def init_state(self, h: Hypers, params: Params) -> WholeState:
        """Return an empty history (rows of zeros change no direction) and what the next step is compared with."""
        flat = torch.zeros_like(_flat(params))
        empty, one = flat.new_zeros((self.history, *flat.shape)), flat.new_ones(())
        last = {"gradient": flat, "direction": flat.clone(), "size": one.clone()}
        return {"y_HD": empty, "s_HD": empty.clone(), "rho_H": empty[:, 0].clone(), "diagonal": one, "begun": 0 * one, **last}

    def update(
        self, h: Hypers, params: Params, grads: Params, state: WholeState, t: Tensor, lr: Hyper, scales: dict[str, float]
    ) -> tuple[Params, WholeState]:
        """Return (params, state)."""
        grad = _flat({name: grads[name] for name in params})
        first = state["begun"] == 0
        memory = _remember(state, grad, first)
        direction = torch.where(first, -grad, _direction(memory, grad))
        begin = torch.clamp(1.0 / grad.abs().sum(), max=1.0)
        size = torch.where(first, begin, 1.0) * lr
        last = {"gradient": grad, "direction": direction, "size": size, "begun": torch.ones_like(state["begun"])}
        active = grad.abs().amax() > _SMALLEST_GRADIENT
        moving = active & (grad @ direction <= -_SMALLEST_DESCENT)
        step, new_params, place = torch.where(moving, size * direction, 0.0), {}, 0
        for name, param in params.items():
            new_params[name] = param + step[place : place + param.numel()].reshape(param.shape)
            place += param.numel()
        return new_params, {name: torch.where(active, value, state[name]) for name, value in {**memory, **last}.items()}


def _remember(state: WholeState, grad: Tensor, first: Tensor) -> WholeState:
    """Return the history with the last step in it, if there was one and the loss curved upwards along it."""
    y, s = grad - state["gradient"], state["direction"] * state["size"]
    curvature = y @ s
    kept = ~first & (curvature > _SMALLEST_CURVATURE)
    safe = torch.where(kept, curvature, 1.0)
    rows = {"y_HD": y, "s_HD": s, "rho_H": 1.0 / safe}
    new = {name: torch.cat([state[name][1:], row.unsqueeze(0)]) for name, row in rows.items()}
    new["diagonal"] = safe / torch.where(kept, y @ y, 1.0)
    return {name: torch.where(kept, value, state[name]) for name, value in new.items()}


def _direction(memory: WholeState, grad: Tensor) -> Tensor:
    """Return minus the approximate inverse Hessian times the gradient (the two-loop recursion)."""
    y_HD, s_HD, rho_H = memory["y_HD"], memory["s_HD"], memory["rho_H"]
    q, alphas = -grad, {}
    for i in reversed(range(len(y_HD))):
        alphas[i] = rho_H[i] * (s_HD[i] @ q)
        q = q - alphas[i] * y_HD[i]
    r: Tensor = memory["diagonal"] * q
    for i in range(len(y_HD)):
        r = r + (alphas[i] - rho_H[i] * (y_HD[i] @ r)) * s_HD[i]
    return r
