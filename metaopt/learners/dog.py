"""DoG and LDoG: SGD whose step size is the distance from the start over the root of the sum of squared gradient norms.

Source: Ivgi, Hinder, Carmon, 2023, "DoG is SGD's best friend: a parameter-free dynamic step size schedule" (2302.12022), equation (1) and
the per-layer variant, as in the authors' package `dog-optimizer`; the average is that of Shamir, Zhang, 2013, "Stochastic gradient descent
for non-smooth optimization: convergence results and optimal averaging schemes", with the package's exponent.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from metaopt.learners.update_rules.classic import Size, root
from metaopt.learners.update_rules.rule import Hyper
from metaopt.learners.whole_model import Hypers, WholeModelLearner, WholeState
from metaopt.tasks.task import Params

__all__ = ["DoG", "LDoG"]

_GAMMA = 8.0  # of the average: iterate t weighs about as much as t**8


@dataclass(frozen=True)
class DoG(WholeModelLearner):
    """Distance over gradients: one step size for the whole model; gradients at the iterate x, and `params` are the average of iterates.

    Losses, in training too, are those at the average, which costs a forward pass more than other learners need. A task's step scales
    multiply the step of their parameter; distances and gradient norms are what they are.

    Attributes:
        reps_rel: first distance, over 1 + the norm of the start. Small enough that the first step does no harm; the package says 1e-6, and
            1e-4 with batch normalisation.
        eps: added to the sum of squared gradient norms.
        weight_decay: added to the gradient.
    """

    name: ClassVar[str] = "dog"
    lr: Size = 1.0
    reps_rel: Annotated[float, Gt(0)] = 1e-6
    eps: Annotated[float, Gt(0)] = 1e-8
    weight_decay: Size = 0.0

    def init_state(self, h: Hypers, params: Params) -> WholeState:
        """Return the iterate and the start (both at the parameters), and each tensor's largest distance and sum of squared gradients."""
        x, start = ({name: param.clone() for name, param in params.items()} for _ in range(2))
        radius = {name: h["reps_rel"] * (1.0 + root(square)) for name, square in self._joined(_squares(params)).items()}
        return {"x": x, "start": start, "radius": radius, "total": {name: torch.zeros_like(one) + h["eps"] for name, one in radius.items()}}

    def gradient_point(self, h: Hypers, params: Params, state: WholeState) -> Params:
        """Return the iterate."""
        point: Params = state["x"]
        return point

    def update(
        self, h: Hypers, params: Params, grads: Params, state: WholeState, t: Tensor, lr: Hyper, scales: dict[str, float]
    ) -> tuple[Params, WholeState]:
        """Return the average and the state; the first average is the first iterate after the start."""
        x, start = state["x"], state["start"]
        moved = self._joined(_squares({name: point - start[name] for name, point in x.items()}))
        decayed = {name: grads[name] + h["weight_decay"] * point for name, point in x.items()}
        found = self._joined(_squares(decayed))
        radius = {name: torch.maximum(state["radius"][name], root(square)) for name, square in moved.items()}
        total = {name: state["total"][name] + square for name, square in found.items()}
        x_new, average = {}, {}
        for name, point in x.items():
            share = (1.0 + _GAMMA) / (1.0 + t.to(point.dtype) + _GAMMA)
            x_new[name] = point - lr * scales[name] * radius[name] / torch.sqrt(total[name]) * decayed[name]
            average[name] = torch.lerp(params[name], x_new[name], share)  # exact where they are equal, and for a share of 1
        return average, {"x": x_new, "start": start, "radius": radius, "total": total}

    def _joined(self, squares: Params) -> Params:
        """Return for each tensor the squared norm of what shares a step size with it: the whole model."""
        whole = torch.stack(list(squares.values())).sum()
        return dict.fromkeys(squares, whole)


@dataclass(frozen=True)
class LDoG(DoG):
    """DoG with a step size for each tensor, from its own distance and its own gradients."""

    name: ClassVar[str] = "ldog"

    def _joined(self, squares: Params) -> Params:
        """Return the squared norms: each tensor stands alone."""
        return squares


def _squares(tensors: Params) -> Params:
    return {name: (tensor * tensor).sum() for name, tensor in tensors.items()}
