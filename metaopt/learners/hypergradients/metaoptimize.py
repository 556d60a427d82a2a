"""MetaOptimize: AdamW whose step size is learned from its effect on the whole run so far, without second derivatives.

With alpha = lr e^beta and a step w' = w - alpha (u + wd w), the trace h = -dw/dbeta is h' = gamma (1 - alpha wd) h + alpha (u + wd w): the
Hessian, and how the moments depend on w, are left out, and gamma discounts the past. The slope of the next loss in beta is then
-<gradient, h>, and beta follows it by the sign of an interpolated momentum.

Source: Sharifnassab, Salehkaleybar, Sutton, 2024, "MetaOptimize: a framework for optimizing step sizes and other meta-parameters"
(2402.02342), the Hessian-free variant with AdamW as base and Lion as meta update; values of the options as in the authors' repository.
Differs: lr stays a factor of alpha and beta begins at 0, which is the same and lets schedules multiply. The repository's packaged class
leaves wd w out of h and moves the momentum before the sign is taken; its experiments, and this, do neither.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.update_rules.classic import Decay, Size, one_minus_power, root
from metaopt.learners.update_rules.rule import Hyper
from metaopt.learners.whole_model import Hypers, WholeModelLearner, WholeState
from metaopt.tasks.task import Params

__all__ = ["MetaOptimize"]

Scope = Literal["global", "per_tensor"]


@dataclass(frozen=True)
class MetaOptimize(WholeModelLearner):
    """AdamW with a learned step size: one gradient and one more tensor a parameter than AdamW.

    Attributes:
        lr: first step size.
        meta_lr: how much the logarithm of a step size changes in a step.
        gamma: discount of the trace, in [0, 1].
        meta_momentum: decay of the momentum of the slopes.
        meta_interpolation: share of that momentum in what the sign is taken of.
        scope: one step size for the whole model, or one a tensor.
    """

    name: ClassVar[str] = "metaoptimize"
    lr: Size = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Size = 1e-8
    weight_decay: Size = 0.0
    meta_lr: Size = 1e-3
    gamma: Size = 0.9999
    meta_momentum: Decay = 0.99
    meta_interpolation: Decay = 0.9
    scope: Scope = "global"

    def __post_init__(self) -> None:
        """Check what the annotations of floats cannot say."""
        if self.scope not in get_args(Scope):
            raise ConfigError(f"scope must be one of {', '.join(get_args(Scope))}, got {self.scope!r}")
        if not 0.0 <= self.gamma <= 1.0:
            raise ConfigError(f"gamma must be in [0, 1], got {self.gamma}")

    def init_state(self, h: Hypers, params: Params) -> WholeState:
        """Return moments, the trace, and for each block (the model, or a tensor) beta and the momentum of its slopes, all zero."""
        zeros: WholeState = {what: {name: torch.zeros_like(param) for name, param in params.items()} for what in ("m", "v", "trace")}
        blocks = {block: next(iter(params.values())).new_zeros(()) for block in {self._block(name): None for name in params}}
        return {**zeros, "beta": blocks, "momentum": {block: zero.clone() for block, zero in blocks.items()}}

    def update(
        self, h: Hypers, params: Params, grads: Params, state: WholeState, t: Tensor, lr: Hyper, scales: dict[str, float]
    ) -> tuple[Params, WholeState]:
        """Return (params, state). The step is taken with the beta that the gradients before this one made."""
        new: WholeState = {"m": {}, "v": {}, "trace": {}, "beta": {}, "momentum": {}}
        moved, downhill = {}, dict.fromkeys(state["beta"], torch.zeros_like(next(iter(state["beta"].values()))))
        for name, w in params.items():
            block, grad = self._block(name), grads[name]
            downhill[block] = downhill[block] + (state["trace"][name] * grad).sum()
            m = h["beta1"] * state["m"][name] + (1 - h["beta1"]) * grad
            v = h["beta2"] * state["v"][name] + (1 - h["beta2"]) * grad * grad
            denominator = root(v / one_minus_power(h["beta2"], t + 1, w)) + h["eps"]
            direction = m / one_minus_power(h["beta1"], t + 1, w) / denominator + h["weight_decay"] * w
            alpha = lr * scales[name] * torch.exp(state["beta"][block])
            moved[name] = w - alpha * direction
            kept = h["gamma"] * (1 - alpha * h["weight_decay"])
            new["trace"][name] = kept * state["trace"][name] + alpha * direction
            new["m"][name], new["v"][name] = m, v
        for block, slope in downhill.items():
            momentum = state["momentum"][block]
            share = h["meta_interpolation"]
            new["beta"][block] = state["beta"][block] + h["meta_lr"] * torch.sign(share * momentum + (1 - share) * slope)
            new["momentum"][block] = h["meta_momentum"] * momentum + (1 - h["meta_momentum"]) * slope
        return moved, new

    def _block(self, name: str) -> str:
        return name if self.scope == "per_tensor" else "model"
