"""The per-weight MLP rule: gradient, weight and six momenta through a 32-32 network, with eleven time features.

Source: Metz, Freeman, Harrison, Maheswaranathan, Sohl-Dickstein, 2022, "Practical tradeoffs between memory, compute, and performance in
learned optimizers" (the MLP optimizer). 19 features, 1,762 weights, 24 bytes of state a parameter.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, MinLen
from torch import Tensor

from metaopt.learners.update_rules.features import TIME_SCALES, moving_average, network, random_network, signal_path, time_features
from metaopt.learners.update_rules.rule import State, Theta

__all__ = ["FEATURES", "MLPRule"]

_DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
_PER_WEIGHT = 2 + len(_DECAYS)
FEATURES = ("gradient", "weight", *(f"momentum {d}" for d in _DECAYS), *(f"time {c:g}" for c in TIME_SCALES))
_MOMENTUM_09 = 2 + _DECAYS.index(0.9)
_EPS = 1e-5


@dataclass(frozen=True)
class MLPRule:
    """step = 1e-3 * direction * exp(1e-3 * magnitude), features normalised to unit RMS over each tensor.

    Attributes:
        start: "adam" begins as momentum 0.9 divided by its own RMS, "random" with random weights.
        hidden: widths of the hidden layers.
    """

    start: Literal["adam", "random"] = "adam"
    hidden: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (32, 32)
    name: str = field(init=False, default="mlp")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)
    base_step: float = field(init=False, default=1e-3)
    exp_mult: float = field(init=False, default=1e-3)

    def init_theta(self, seed: int) -> Theta:
        """Return the network's weights; see `start`."""
        theta = random_network((_PER_WEIGHT + len(TIME_SCALES), *self.hidden, 2), seed)
        return signal_path(theta, _MOMENTUM_09) if self.start == "adam" else theta

    def init_state(self, param: Tensor) -> State:
        """Return six zero momenta, [6, *shape]."""
        return {"m": param.new_zeros((len(_DECAYS), *param.shape))}

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (step, state)."""
        m = moving_average(state["m"], grad, _DECAYS)
        features = torch.cat([grad.reshape(1, -1), param.reshape(1, -1), m.reshape(len(_DECAYS), -1)])
        scale = torch.rsqrt(_EPS + (features * features).mean(1))
        direction, magnitude = network(theta, features, scale, time_features(t, param.dtype))
        step = self.base_step * direction * torch.exp(self.exp_mult * magnitude)
        return step.reshape(param.shape), {"m": m}
