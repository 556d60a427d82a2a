"""Adam whose four hyperparameters are the meta-parameters: the smallest learned optimizer.

Source: Metz et al., 2022, "VeLO" code release (learnable Adam baseline); Kingma, Ba, 2015, "Adam", algorithm 1.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.learners.update_rules.classic import Adam
from metaopt.learners.update_rules.rule import State, Theta

__all__ = ["LearnableAdam"]

_ADAM = Adam()
_START = {"log_lr": math.log(1e-3), "log_one_minus_beta1": math.log(0.1), "log_one_minus_beta2": math.log(1e-3), "log_eps": math.log(1e-8)}
# A random start draws each within a factor of about ten of Adam's value; log_lr must leave room to be learned in both directions.
_SPREAD = {"log_lr": 2.3, "log_one_minus_beta1": 1.0, "log_one_minus_beta2": 1.0, "log_eps": 2.3}


@dataclass(frozen=True)
class LearnableAdam:
    """Adam with theta = (log lr, log(1 - beta1), log(1 - beta2), log eps), 0-d tensors.

    Attributes:
        start: "adam" begins at Adam's defaults, "random" at a random point around them.
    """

    start: Literal["adam", "random"] = "adam"
    name: str = field(init=False, default="learnable_adam")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)

    def init_theta(self, seed: int) -> Theta:
        """Return the four logarithms; see `start`."""
        theta = {}
        for i, (name, value) in enumerate(_START.items()):
            offset = float(seeds.normal(seeds.key("rule", seed, i))) * _SPREAD[name] if self.start == "random" else 0.0
            theta[name] = torch.tensor(value + offset)
        return theta

    def init_state(self, param: Tensor) -> State:
        """Return Adam's two zero moments."""
        return _ADAM.init_state(param)

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (Adam's step, state). 1 - beta is clamped to [1e-6, 1]."""
        hypers = {
            "beta1": 1 - torch.exp(theta["log_one_minus_beta1"]).clamp(1e-6, 1.0 - 1e-6),
            "beta2": 1 - torch.exp(theta["log_one_minus_beta2"]).clamp(1e-6, 1.0 - 1e-6),
            "eps": torch.exp(theta["log_eps"]),
        }
        direction, state = _ADAM.update(hypers, param, grad, state, t)
        return torch.exp(theta["log_lr"]) * direction, state
