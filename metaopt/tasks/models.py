"""Inner models: a frozen description with `init` and `apply`, pure functions of a dict of tensors.

Legend: B batch, D features, C classes. Weights are [out, in] (convolutions [out, in, height, width]), as in torch.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.tasks.task import Params

__all__ = ["ACTIVATIONS", "MLP", "ConvNet"]

ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
    "selu": F.selu,
    "sin": torch.sin,
}


def _weight(key: Tensor, shape: tuple[int, ...], scale: Tensor) -> Tensor:
    """Return normal weights with standard deviation scale / sqrt(fan_in)."""
    fan_in = math.prod(shape[1:])
    return seeds.normal(key, shape, scale.dtype) * (scale / math.sqrt(fan_in))


def _linear(params: Params, name: str, inputs: Tensor) -> Tensor:
    return inputs @ params[f"{name}.weight"].T + params[f"{name}.bias"]


@dataclass(frozen=True)
class MLP:
    """Fully connected layers `sizes[0] -> ... -> sizes[-1]`, an activation between them."""

    sizes: tuple[int, ...]
    activation: str

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights N(0, scale^2 / fan_in) and zero biases."""
        params: Params = {}
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            params[f"layer{i}.weight"] = _weight(seeds.fold_in(key, i), (fan_out, fan_in), scale)
            params[f"layer{i}.bias"] = scale.new_zeros(fan_out)
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, C] of inputs [B, D]."""
        last = len(self.sizes) - 2
        hidden = inputs
        for i in range(last):
            hidden = ACTIVATIONS[self.activation](_linear(params, f"layer{i}", hidden))
        return _linear(params, f"layer{last}", hidden)


@dataclass(frozen=True)
class ConvNet:
    """3 x 3 convolutions (first stride 1, then 2) on square grey images, mean pooling, one linear layer."""

    side: int
    channels: tuple[int, ...]
    classes: int
    activation: str

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights N(0, scale^2 / fan_in) and zero biases."""
        params: Params = {}
        for i, (fan_in, fan_out) in enumerate(zip((1, *self.channels), self.channels, strict=False)):
            params[f"conv{i}.weight"] = _weight(seeds.fold_in(key, i), (fan_out, fan_in, 3, 3), scale)
            params[f"conv{i}.bias"] = scale.new_zeros(fan_out)
        params["head.weight"] = _weight(seeds.fold_in(key, len(self.channels)), (self.classes, self.channels[-1]), scale)
        params["head.bias"] = scale.new_zeros(self.classes)
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, C] of inputs [B, side * side]."""
        hidden = inputs.reshape(-1, 1, self.side, self.side)
        for i in range(len(self.channels)):
            hidden = F.conv2d(hidden, params[f"conv{i}.weight"], params[f"conv{i}.bias"], stride=1 if i == 0 else 2, padding=1)
            hidden = ACTIVATIONS[self.activation](hidden)
        return _linear(params, "head", hidden.mean((-2, -1)))
