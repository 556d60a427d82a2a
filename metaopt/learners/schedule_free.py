"""Schedule-Free AdamW: no decay of the step size, but an average of the iterates.

Source: Defazio et al., 2024, "The road less scheduled" (2405.15682), algorithm 1; for weights under warm-up and where weight decay acts
the `schedulefree` package (`AdamWScheduleFree`), which keeps y and z where this keeps x and z.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt.learners.learner import SCHEDULES, Schedule
from metaopt.learners.update_rules.classic import Decay, Size, one_minus_power, root
from metaopt.learners.update_rules.rule import Hyper
from metaopt.learners.whole_model import Hypers, WholeModelLearner, WholeState
from metaopt.tasks.task import Params

__all__ = ["ScheduleFreeAdamW"]


@dataclass(frozen=True)
class ScheduleFreeAdamW(WholeModelLearner):
    """AdamW with averaged iterates: gradients at y, steps on z, and `params` are their average x.

    Losses, in training too, are those at x, which costs a forward pass more than other learners need.
    """

    name: ClassVar[str] = "schedule_free_adamw"
    schedule: Schedule = SCHEDULES["warmup"]
    lr: Size = 2.5e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Size = 1e-8
    weight_decay: Size = 0.0

    def init_state(self, h: Hypers, params: Params) -> WholeState:
        """Return z (at the parameters), the second moment, the largest step size so far and the sum of the average's weights."""
        zero = next(iter(params.values())).new_zeros(())
        v = {name: torch.zeros_like(param) for name, param in params.items()}
        return {"z": {name: param.clone() for name, param in params.items()}, "v": v, "lr_max": zero, "weight_sum": zero.clone()}

    def gradient_point(self, h: Hypers, params: Params, state: WholeState) -> Params:
        """Return y, between x and z."""
        return {name: h["beta1"] * x + (1 - h["beta1"]) * state["z"][name] for name, x in params.items()}

    def update(
        self, h: Hypers, params: Params, grads: Params, state: WholeState, t: Tensor, lr: Hyper, scales: dict[str, float]
    ) -> tuple[Params, WholeState]:
        """Return x and the state; an iterate weighs as much in the average as the square of the largest step size so far."""
        largest = torch.maximum(state["lr_max"], torch.as_tensor(lr).to(state["lr_max"]))
        weight = largest * largest
        total = state["weight_sum"] + weight
        share = torch.where(total > 0, weight / torch.where(total > 0, total, 1.0), 0.0)
        x_new, z_new, v_new = {}, {}, {}
        for name, y in self.gradient_point(h, params, state).items():
            v = h["beta2"] * state["v"][name] + (1 - h["beta2"]) * grads[name] * grads[name]
            direction = grads[name] / (root(v / one_minus_power(h["beta2"], t + 1, y)) + h["eps"]) + h["weight_decay"] * y
            z_new[name] = state["z"][name] - lr * scales[name] * direction
            x_new[name] = params[name] + share * (z_new[name] - params[name])
            v_new[name] = v
        return x_new, {"z": z_new, "v": v_new, "lr_max": largest, "weight_sum": total}
