"""Prodigy: Adam that estimates its step size from how far the whole model has moved.

Source: Mishchenko, Defazio, 2024, "Prodigy: An expeditiously adaptive parameter-free learner" (2306.06101), algorithm 4, as in the
`prodigyopt` package. Differs: no limit on the growth of the estimate.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt.learners.update_rules.classic import Decay, Size, one_minus_power, root
from metaopt.learners.update_rules.rule import Hyper
from metaopt.learners.whole_model import Hypers, WholeModelLearner, WholeState
from metaopt.tasks.task import Params

__all__ = ["Prodigy"]


@dataclass(frozen=True)
class Prodigy(WholeModelLearner):
    """Adam with step size `lr` times an estimate of the distance to the solution, and decoupled weight decay.

    Attributes:
        d0: first estimate of the distance.
        d_coef: factor of later ones.
        bias_correction: of Adam's moments.
        safeguard_warmup: keep the step size out of the estimate's denominator, for schedules that begin with a warm-up.
    """

    name: ClassVar[str] = "prodigy"
    lr: Size = 1.0
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Size = 1e-8
    weight_decay: Size = 0.0
    d0: Size = 1e-6
    d_coef: Size = 1.0
    bias_correction: bool = False
    safeguard_warmup: bool = False

    def init_state(self, h: Hypers, params: Params) -> WholeState:
        """Return moments, the weighted sum of gradients and the start of every tensor, and the numbers of the whole model."""
        one = next(iter(params.values())).new_ones(())
        zeros = {what: {name: torch.zeros_like(param) for name, param in params.items()} for what in ("m", "v", "s")}
        start = {name: param.clone() for name, param in params.items()}
        return {**zeros, "start": start, "d": one * h["d0"], "numerator": 0 * one, "count": 0 * one}

    def update(
        self, h: Hypers, params: Params, grads: Params, state: WholeState, t: Tensor, lr: Hyper, scales: dict[str, float]
    ) -> tuple[Params, WholeState]:
        """Return (params, state). Without any gradient yet, nothing but the moments changes."""
        d, d0, beta3 = state["d"], h["d0"], h["beta2"] ** 0.5
        correction: Hyper = 1.0
        if self.bias_correction:
            later = state["count"] + 1
            correction = torch.sqrt(one_minus_power(h["beta2"], later, d)) / one_minus_power(h["beta1"], later, d)
        step = d * lr * correction
        weight = d / d0 * (d if self.safeguard_warmup else step)
        m, v, s = {}, {}, {}
        numerator, denominator = beta3 * state["numerator"], torch.zeros_like(d)
        for name, grad in grads.items():
            numerator = numerator + d / d0 * step * (grad * (state["start"][name] - params[name])).sum()
            m[name] = h["beta1"] * state["m"][name] + (1 - h["beta1"]) * d * grad
            v[name] = h["beta2"] * state["v"][name] + (1 - h["beta2"]) * d * d * grad * grad
            s[name] = beta3 * state["s"][name] + weight * grad
            denominator = denominator + s[name].abs().sum()
        known = denominator > 0
        estimate = h["d_coef"] * numerator / torch.where(known, denominator, 1.0)
        next_d = torch.maximum(d, estimate)
        new_params = {}
        for name, param in params.items():
            moved = param - step * scales[name] * (m[name] / (root(v[name]) + next_d * h["eps"]) + h["weight_decay"] * param)
            new_params[name] = torch.where(known, moved, param)
        numbers = {"d": next_d, "numerator": numerator, "count": state["count"] + 1}
        kept = {name: torch.where(known, value, state[name]) for name, value in numbers.items()}
        return new_params, {"m": m, "v": v, "s": s, "start": state["start"], **kept}
