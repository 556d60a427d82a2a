"""The accumulators and 28 features a weight of the rules around Adafactor's factored moments: `small_fc` and `star`.

Legend: n weights of one tensor, K decays.

Source: Metz, Freeman, Harrison, Maheswaranathan, Sohl-Dickstein, 2022, "Practical tradeoffs between memory, compute, and performance in
learned optimizers" (the Adafactor MLP optimizer) and its code release. Differs: learned decays of momenta are clamped to [0, 1] as the
others are.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from metaopt.learners.update_rules.features import TIME_SCALES, factored_moments, init_factored, moving_average
from metaopt.learners.update_rules.rule import State, Theta

__all__ = ["FEATURES", "PER_WEIGHT", "Accumulated", "accumulate", "decay_offsets", "init_accumulators"]

MOMENTUM_DECAYS = (0.9, 0.99, 0.999)
SECOND_DECAYS = (0.999,)
FACTORED_DECAYS = (0.9, 0.99, 0.999)


def _each(name: str, decays: tuple[float, ...]) -> list[str]:
    return [f"{name} {decay}" for decay in decays]


# Published weights are stored in this order.
FEATURES = (
    "gradient",
    "weight",
    *_each("momentum", MOMENTUM_DECAYS),
    "second moment",
    *_each("normalised momentum", MOMENTUM_DECAYS),
    "inverse root second moment",
    *_each("factored normalised gradient", FACTORED_DECAYS),
    *_each("row moment", FACTORED_DECAYS),
    *_each("column moment", FACTORED_DECAYS),
    *_each("inverse root row moment", FACTORED_DECAYS),
    *_each("inverse root column moment", FACTORED_DECAYS),
    *_each("factored normalised momentum", MOMENTUM_DECAYS),
    *(f"time {c:g}" for c in TIME_SCALES),
)
PER_WEIGHT = len(FEATURES) - len(TIME_SCALES)
_EPS_V, _EPS_ROOT = 1e-6, 1e-8


def decay_offsets() -> Theta:
    """Return the seven offsets of learned decays, zero: the decays begin at their published values."""
    counts = {"momentum": len(MOMENTUM_DECAYS), "second": len(SECOND_DECAYS), "factored": len(FACTORED_DECAYS)}
    return {f"{name}_offset": torch.zeros(count) for name, count in counts.items()}


def _decays(theta: Theta, name: str, start: tuple[float, ...], like: Tensor) -> Tensor:
    """Return 1 - (1 - start) exp(10 offset) in [0, 1], [K]; without offsets in theta, `start`."""
    rest = torch.tensor([1.0 - decay for decay in start], dtype=like.dtype, device=like.device)
    if f"{name}_offset" in theta:
        rest = (rest * torch.exp(10.0 * theta[f"{name}_offset"])).clamp(0.0, 1.0)
    return 1.0 - rest


def init_accumulators(param: Tensor) -> State:
    """Return three momenta, a second moment and the factored second moments, all zero: 16 bytes a weight, and rows and columns."""
    momenta = param.new_zeros((len(MOMENTUM_DECAYS), *param.shape))
    return {"m": momenta, "v": torch.zeros_like(param), **init_factored(param, len(FACTORED_DECAYS))}


class Accumulated(NamedTuple):
    """The features after one update of the accumulators.

    Attributes:
        features: [28, n], not normalised; time features come last, and are the same for every weight.
        adam: the three momenta over the root of the second moment, [3, *shape].
        inverse: one over the root of the second moment, [*shape].
        state: the accumulators.
    """

    features: Tensor
    adam: Tensor
    inverse: Tensor
    state: State


def accumulate(theta: Theta, param: Tensor, grad: Tensor, state: State) -> Accumulated:
    """Return accumulators and features for one gradient; decays are learned where theta has offsets."""
    m = moving_average(state["m"], grad, _decays(theta, "momentum", MOMENTUM_DECAYS, grad))
    v = moving_average(state["v"].unsqueeze(0), grad * grad, _decays(theta, "second", SECOND_DECAYS, grad)).squeeze(0)
    moments, factor, row, column = factored_moments(grad, state, _decays(theta, "factored", FACTORED_DECAYS, grad))
    inverse = torch.rsqrt(v + _EPS_V)
    adam = m * inverse
    # A vector's dense moment stands in for rows and columns, with another epsilon (as published).
    momentum_factor = factor if param.dim() >= 2 else torch.rsqrt(row + _EPS_V)
    roots = [torch.rsqrt(row + _EPS_ROOT), torch.rsqrt(column + _EPS_ROOT)]
    groups = [grad, param, m, v, adam, inverse, grad * factor, row, column, *roots, m * momentum_factor]
    features = torch.cat([group.reshape(-1, param.numel()) for group in groups])
    return Accumulated(features, adam, inverse, {"m": m, "v": v, **moments})
