"""Celo2's update rule without Newton-Schulz: 30 features through an 8-8 network, the output's size set per tensor.

Source: Moudgil, Knyazev, Belilovsky, 2026, "Celo2: Towards Learned Optimization Free Lunch" (the base variant). Differs: features and
output are normalised over the whole tensor, where the paper takes the last two axes (the same for matrices; torch keeps a convolution's
kernel there); the clipped gradient is clipped in units of the tensor's RMS; two learned log step sizes replace one tuned rate; the
output's size can be grafted on Adam's (`output="graft"`).
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from metaopt.learners.update_rules.features import factored_moments, init_factored, moving_average, network, random_network, signal_path
from metaopt.learners.update_rules.rule import State, Theta

__all__ = ["FEATURES", "Celo2Base"]

_MOMENTUM_DECAYS = (0.9, 0.99, 0.999)
_SECOND_DECAY = 0.95
_FACTORED_DECAYS = (0.9, 0.99, 0.999)


def _each(name: str, decays: tuple[float, ...]) -> list[str]:
    return [f"{name} {decay}" for decay in decays]


# A tensor of rank <= 1 has the first 15: all that need no rows and columns.
FEATURES = (
    *("gradient", "clipped gradient", "weight"),
    *_each("momentum", _MOMENTUM_DECAYS),
    "second moment",
    *_each("normalised momentum", _MOMENTUM_DECAYS),
    "inverse root second moment",
    *_each("factored normalised gradient", _FACTORED_DECAYS),
    "normalised gradient",
    *_each("row moment", _FACTORED_DECAYS),
    *_each("column moment", _FACTORED_DECAYS),
    *_each("inverse root row moment", _FACTORED_DECAYS),
    *_each("inverse root column moment", _FACTORED_DECAYS),
    *_each("factored normalised momentum", _MOMENTUM_DECAYS),
)
_ADAM_FEATURE = FEATURES.index("normalised momentum 0.9")
_EPS_V = 1e-8
_EPS_NORM = 1e-9
_CLIP = 0.1


@dataclass(frozen=True)
class Celo2Base:
    """direction = exp(log_step) * size * out / rms(out), one learned log_step for matrices and one for vectors.

    Attributes:
        start: "adam" begins as Adam without bias correction (beta2 0.95), "random" with random weights.
        output: "graft" gives the direction the RMS of Adam's own update, which dies out with the gradient signal; "rms" gives it unit RMS.
    """

    start: Literal["adam", "random"] = "adam"
    output: Literal["graft", "rms"] = "graft"
    name: str = field(init=False, default="celo2_base")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)
    base_step: float = field(init=False, default=1e-2)

    def init_theta(self, seed: int) -> Theta:
        """Return 347 network weights and the two log step sizes; see `start`."""
        theta = random_network((len(FEATURES), 8, 8, 3), seed)
        if self.start == "adam":
            theta = signal_path(theta, _ADAM_FEATURE)
        return {**theta, "log_step": torch.full((2,), math.log(self.base_step))}

    def init_state(self, param: Tensor) -> State:
        """Return three momenta, one second moment and the factored second moments, all zero."""
        momenta = param.new_zeros((len(_MOMENTUM_DECAYS), *param.shape))
        return {"m": momenta, "v": torch.zeros_like(param), **init_factored(param, len(_FACTORED_DECAYS))}

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (step, state)."""
        m = moving_average(state["m"], grad, _MOMENTUM_DECAYS)
        v = _SECOND_DECAY * state["v"] + (1 - _SECOND_DECAY) * grad * grad
        moments, factor, row, column = factored_moments(grad, state, _FACTORED_DECAYS)
        inverse = torch.rsqrt(v + _EPS_V)
        limit = _CLIP * torch.sqrt((grad * grad).mean())
        groups = [grad, torch.clamp(grad, -limit, limit), param, m, v, m * inverse, inverse, grad * factor, grad * inverse]
        if param.dim() >= 2:
            groups += [row, column, torch.rsqrt(row + _EPS_V), torch.rsqrt(column + _EPS_V), m * factor]
        features = torch.cat([g.reshape(-1, param.numel()) for g in groups])
        scale = torch.rsqrt(_EPS_NORM + (features * features).mean(1))
        out = network(theta, features, scale)[0]
        size = 1.0 / scale[_ADAM_FEATURE] if self.output == "graft" else 1.0
        unit = out * torch.rsqrt(_EPS_NORM + (out * out).mean())
        step = torch.exp(theta["log_step"][0 if param.dim() >= 2 else 1]) * size
        return (unit * step).reshape(param.shape), {"m": m, "v": v, **moments}
