"""Celo2: 30 features through an 8-8 network, the output's size set per tensor; alone, or orthogonalised and beside AdamW for vectors.

Source: Moudgil, Knyazev, Belilovsky, 2026, "Celo2: Towards Learned Optimization Free Lunch" (both variants). Differs: features and
output are normalised over the whole tensor, where the paper takes the last two axes (the same for matrices; torch keeps a convolution's
kernel there); the clipped gradient is clipped in units of the tensor's RMS; learned log step sizes replace one tuned rate; the
output's size can be grafted on Adam's (`output="graft"`); Newton-Schulz sees a kernel as a matrix [out, rest].
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from metaopt.learners.update_rules.classic import Adam
from metaopt.learners.update_rules.features import factored_moments, init_factored, moving_average, network, random_network, signal_path
from metaopt.learners.update_rules.newton_schulz import orthogonalised
from metaopt.learners.update_rules.rule import State, Theta

__all__ = ["FEATURES", "Celo2", "Celo2Base"]

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
_VECTORS = Adam(beta2=0.95)
_VECTOR_FACTOR = 20.0


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
        return {**_init_network(self.start, seed), "log_step": torch.full((2,), math.log(self.base_step))}

    def init_state(self, param: Tensor) -> State:
        """Return three momenta, one second moment and the factored second moments, all zero."""
        return _init_accumulators(param)

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (step, state)."""
        out, adam_size, state = _learned(theta, param, grad, state)
        size = adam_size if self.output == "graft" else 1.0
        unit = out * torch.rsqrt(_EPS_NORM + _mean_square(out))
        step = torch.exp(theta["log_step"][0 if param.dim() >= 2 else 1]) * size
        return (unit * step).reshape(param.shape), state


@dataclass(frozen=True)
class Celo2:
    """A matrix takes exp(log_step) * size * orthogonalised(out), scaled to unit RMS; everything else Adam's step at 20 times the rate.

    Everything else is tensors of rank <= 1, and embeddings (see `UpdateRule`): Adam (0.9, 0.95, epsilon 1e-8), bias corrected. Weight
    decay is the caller's, the same for both kinds.

    Attributes:
        start: "adam" lets the network pass on Adam's direction without bias correction (beta2 0.95), "random" has random weights.
        output: "rms" gives a matrix's step unit RMS (as published), "graft" the RMS of Adam's own update, which dies out with the
            gradient signal.
    """

    start: Literal["adam", "random"] = "adam"
    output: Literal["graft", "rms"] = "rms"
    name: str = field(init=False, default="celo2")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)
    base_step: float = field(init=False, default=1e-3)

    def init_theta(self, seed: int) -> Theta:
        """Return 347 network weights and the log step size of matrices; see `start`."""
        return {**_init_network(self.start, seed), "log_step": torch.tensor(math.log(self.base_step))}

    def init_state(self, param: Tensor) -> State:
        """Return the accumulators of a matrix, or Adam's two moments for rank <= 1."""
        return _init_accumulators(param) if param.dim() >= 2 else _VECTORS.init_state(param)

    def init_embedding_state(self, param: Tensor) -> State:
        """Return Adam's two moments."""
        return _VECTORS.init_state(param)

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (step, state); a state without rows is that of a vector or an embedding."""
        step = torch.exp(theta["log_step"])
        if "row" not in state:
            direction, state = _VECTORS.update({}, param, grad, state, t)
            return _VECTOR_FACTOR * step * direction, state
        out, adam_size, state = _learned(theta, param, grad, state)
        out = orthogonalised(out.reshape(param.shape[0], -1))
        size = adam_size if self.output == "graft" else 1.0
        unit = out * torch.rsqrt(_EPS_NORM + _mean_square(out))
        return (unit * (step * size)).reshape(param.shape), state


def _init_network(start: str, seed: int) -> Theta:
    theta = random_network((len(FEATURES), 8, 8, 3), seed)
    return signal_path(theta, _ADAM_FEATURE) if start == "adam" else theta


def _init_accumulators(param: Tensor) -> State:
    momenta = param.new_zeros((len(_MOMENTUM_DECAYS), *param.shape))
    return {"m": momenta, "v": torch.zeros_like(param), **init_factored(param, len(_FACTORED_DECAYS))}


def _mean_square(values: Tensor) -> Tensor:
    """Return the mean square as [1]: forward-mode derivatives of a Python number times a 0-d tensor come out in float64 under vmap."""
    return (values * values).mean().reshape(1)


def _learned(theta: Theta, param: Tensor, grad: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
    """Return (the network's output [n], the RMS of Adam's own update [1], state)."""
    m = moving_average(state["m"], grad, _MOMENTUM_DECAYS)
    v = _SECOND_DECAY * state["v"] + (1 - _SECOND_DECAY) * grad * grad
    moments, factor, row, column = factored_moments(grad, state, _FACTORED_DECAYS)
    inverse = torch.rsqrt(v + _EPS_V)
    limit = _CLIP * torch.sqrt(_mean_square(grad))
    groups = [grad, torch.clamp(grad.reshape(-1), -limit, limit), param, m, v, m * inverse, inverse, grad * factor, grad * inverse]
    if param.dim() >= 2:
        groups += [row, column, torch.rsqrt(row + _EPS_V), torch.rsqrt(column + _EPS_V), m * factor]
    features = torch.cat([g.reshape(-1, param.numel()) for g in groups])
    scale = torch.rsqrt(_EPS_NORM + (features * features).mean(1))
    return network(theta, features, scale)[0], 1.0 / scale[_ADAM_FEATURE : _ADAM_FEATURE + 1], {"m": m, "v": v, **moments}
