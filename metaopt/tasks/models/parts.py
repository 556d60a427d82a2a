"""What inner models are made of: activations, initial weights, layers, normalisation.

Legend: B batch, D features, C classes. Weights are [out, in] (convolutions [out, in, height, width]), as in torch.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.names import nearest
from metaopt.tasks.task import Params

__all__ = ["ACTIVATIONS", "INITIALISERS", "NORMS", "check_parts", "head_weight", "linear", "norm_params", "normed", "weight"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "selu": F.selu,
    "tanh": torch.tanh,
    "cos": torch.cos,
    "sin": torch.sin,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "leaky_relu": functools.partial(F.leaky_relu, negative_slope=-0.5),  # folds: -0.5 is the slope of VeLO's distribution, not a slip
}

INITIALISERS = ("normal", "uniform", "fan_avg", "fan_out", "orthogonal")
NORMS = ("none", "layer_norm", "rms_norm", "batch_norm")
_EPS = 1e-5


def check_parts(activation: str, initialiser: str, norm: str) -> None:
    """Raise unless the names of a model's parts are known.

    Raises:
        TaskError: a name that is not; the message has the nearest one.
    """
    for what, name, known in (("activation", activation, ACTIVATIONS), ("initialiser", initialiser, INITIALISERS), ("norm", norm, NORMS)):
        if name not in known:
            raise TaskError(f"model {what} {name!r} is unknown{nearest(name, known)}")


def weight(key: Tensor, shape: tuple[int, ...], scale: Tensor, initialiser: str = "normal") -> Tensor:
    """Return initial weights [out, in, ...] of a layer.

    Args:
        key: int64, 0-d.
        shape: out, in, and the extent of a convolution's kernel.
        scale: factor of the standard deviation, 0-d; its dtype is the result's.
        initialiser: "normal", "fan_avg" and "fan_out" are normal with variance scale^2 over the fan that they name ("normal": fan in);
            "uniform" has the variance of "normal"; "orthogonal" has orthonormal rows or columns, whichever are fewer, times the scale.
    """
    fan_in = math.prod(shape[1:])
    fan_out = shape[0] * math.prod(shape[2:])
    if initialiser == "uniform":
        return (2.0 * seeds.uniform(key, shape, scale.dtype) - 1.0) * (scale * math.sqrt(3.0 / fan_in))
    normal: Tensor = seeds.normal(key, shape, scale.dtype)
    if initialiser == "orthogonal":
        flat = normal.reshape(shape[0], fan_in)
        tall = flat if shape[0] >= fan_in else flat.T
        raw, triangle = torch.linalg.qr(tall)
        q: Tensor = raw * torch.sign(torch.diagonal(triangle))  # makes the draw uniform over the orthogonal matrices
        return ((q if shape[0] >= fan_in else q.T) * scale).reshape(shape)
    fan = {"normal": fan_in, "fan_avg": (fan_in + fan_out) / 2, "fan_out": fan_out}[initialiser]
    return normal * (scale / math.sqrt(fan))


def head_weight(key: Tensor, shape: tuple[int, ...], scale: Tensor, initialiser: str) -> Tensor:
    """Return initial weights of an output layer: as `weight`, but over the fan in where a fan is named, for a head has few outputs."""
    return weight(key, shape, scale, "normal" if initialiser in ("fan_avg", "fan_out") else initialiser)


def linear(params: Params, name: str, inputs: Tensor) -> Tensor:
    """Return inputs [..., in] times the weight's transpose plus the bias: [..., out]."""
    return inputs @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def norm_params(norm: str, name: str, features: int, like: Tensor) -> Params:
    """Return the gain and bias of a normalisation layer: ones and zeros [features], nothing for "none", no bias for "rms_norm"."""
    if norm == "none":
        return {}
    gain = {f"{name}.weight": like.new_ones(features)}
    return gain if norm == "rms_norm" else {**gain, f"{name}.bias": like.new_zeros(features)}


def normed(norm: str, params: Params, name: str, hidden: Tensor, channel_axis: int = -1) -> Tensor:
    """Return hidden [B, ...] normalised; nothing is remembered between batches.

    Args:
        norm: "layer_norm" and "rms_norm" normalise each example on its own (over channels, and over positions where channels come first);
            "batch_norm" each channel over the current batch, in evaluation too.
        params: where `name.weight` and `name.bias` are.
        hidden: at least two axes.
        channel_axis: -1 (channels last: every position on its own) or 1 (channels first, as in convolutions).
    """
    if norm == "none":
        return hidden
    first = channel_axis == 1
    positions = tuple(range(2, hidden.dim())) if first else tuple(range(1, hidden.dim() - 1))
    if norm == "batch_norm":
        axes: tuple[int, ...] = (0, *positions)
    else:
        axes = (1, *positions) if first else (-1,)
    if norm != "rms_norm":
        hidden = hidden - hidden.mean(axes, keepdim=True)
    hidden = hidden * torch.rsqrt(hidden.square().mean(axes, keepdim=True) + _EPS)
    along = (-1, *[1] * (hidden.dim() - 2)) if first else (-1,)
    hidden = hidden * params[f"{name}.weight"].reshape(along)
    return hidden if norm == "rms_norm" else hidden + params[f"{name}.bias"].reshape(along)
