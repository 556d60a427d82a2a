"""What inner models are made of: activations, initial weights, layers.

Legend: B batch, D features, C classes. Weights are [out, in] (convolutions [out, in, height, width]), as in torch.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.tasks.task import Params

__all__ = ["ACTIVATIONS", "linear", "weight"]

ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
    "selu": F.selu,
    "sin": torch.sin,
}


def weight(key: Tensor, shape: tuple[int, ...], scale: Tensor) -> Tensor:
    """Return normal weights with standard deviation scale / sqrt(fan_in)."""
    fan_in = math.prod(shape[1:])
    return seeds.normal(key, shape, scale.dtype) * (scale / math.sqrt(fan_in))


def linear(params: Params, name: str, inputs: Tensor) -> Tensor:
    return inputs @ params[f"{name}.weight"].T + params[f"{name}.bias"]
