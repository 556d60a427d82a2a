"""A fully connected network of one variable together with its first two derivatives in that variable.

Derivatives are carried forward beside the value, layer by layer, so that a loss made of them needs one reverse pass like any other.

Legend: B points, H units.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.task import Params

__all__ = ["JET_ACTIVATIONS", "Jet", "jet"]

Jet = tuple[Tensor, Tensor, Tensor]  # value, first and second derivative


def _tanh(z: Tensor) -> Jet:
    value = torch.tanh(z)
    slope = 1.0 - value.square()
    return value, slope, -2.0 * value * slope


def _sin(z: Tensor) -> Jet:
    value = torch.sin(z)
    return value, torch.cos(z), -value


JET_ACTIVATIONS: dict[str, Callable[[Tensor], Jet]] = {"tanh": _tanh, "sin": _sin}


def jet(net: MLP, params: Params, x: Tensor) -> Jet:
    """Return u [B], du/dx [B] and d2u/dx2 [B] of a net with one input and one output at the points x [B].

    The net has no normalisation, and its activation is one of `JET_ACTIVATIONS`.
    """
    layers = range(len(net.sizes) - 1)
    value, first, second = x.unsqueeze(-1), torch.ones_like(x).unsqueeze(-1), torch.zeros_like(x).unsqueeze(-1)
    for i in layers:
        matrix = params[f"layer{i}.weight"].T
        value, first, second = value @ matrix + params[f"layer{i}.bias"], first @ matrix, second @ matrix
        if i < layers[-1]:
            value, slope, bend = JET_ACTIVATIONS[net.activation](value)
            second = bend * first.square() + slope * second
            first = slope * first
    return value.squeeze(-1), first.squeeze(-1), second.squeeze(-1)
