"""An LSTM that runs once for each tensor of a model and hears, through a maximum, what all of them see.

Legend: K tensors, D inputs, H units.

Source: Metz et al., 2022, "VeLO: training versatile learned optimizers by scaling up", appendix B, and its code release. Differs: the
release has one more linear layer [D, H], whose output it throws away; it is left out.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.learners.lstm_cell import lstm_cell
from metaopt.learners.update_rules.rule import State, Theta

__all__ = ["init_linear", "init_lstm", "init_tensor_lstm", "initial_lstm_state", "linear", "tensor_lstm"]


def init_linear(name: str, inputs: int, outputs: int, seed: int) -> Theta:
    """Return `<name>_weight` [outputs, inputs], normal with deviation 1 / sqrt(inputs) clamped at two of them, and a zero `<name>_bias`."""
    draw = seeds.normal(seeds.key("rule", seed, name), (outputs, inputs)).clamp(-2.0, 2.0)
    return {f"{name}_weight": draw / math.sqrt(inputs), f"{name}_bias": torch.zeros(outputs)}


def linear(theta: Theta, name: str, x: Tensor) -> Tensor:
    """Return weight x + bias for x [..., inputs]."""
    return F.linear(x, theta[f"{name}_weight"], theta[f"{name}_bias"])


def init_lstm(inputs: int, hidden: int, seed: int) -> Theta:
    """Return an LSTM's `input_weight`, `hidden_weight`, `gate_bias` (gates i, g, f, o), `initial_hidden` and `initial_cell`."""
    both = init_linear("gate", inputs + hidden, 4 * hidden, seed)
    return {
        "input_weight": both["gate_weight"][:, :inputs].clone(),
        "hidden_weight": both["gate_weight"][:, inputs:].clone(),
        "gate_bias": both["gate_bias"],
        "initial_hidden": torch.zeros(hidden),
        "initial_cell": torch.zeros(hidden),
    }


def initial_lstm_state(theta: Theta, like: Tensor) -> State:
    """Return `hidden` and `cell` [H] as theta has them, in the dtype and on the device of `like`."""
    return {name: theta[f"initial_{name}"].to(like).clone() for name in ("hidden", "cell")}


def init_tensor_lstm(inputs: int, hidden: int, seed: int) -> Theta:
    """Return the LSTM on H inputs, and the layers `pool` and `project` [H, D] before it."""
    layers = [init_linear(name, inputs, hidden, seed) for name in ("pool", "project")]
    return {**layers[0], **layers[1], **init_lstm(hidden, hidden, seed)}


def tensor_lstm(theta: Theta, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return (hidden, cell), [K, H] each, after one step on project(x) + max over tensors of relu(pool(x)).

    The forget gate has +1, so that a fresh LSTM remembers.

    Args:
        theta: as `init_tensor_lstm` returns it; other entries are ignored.
        inputs: [K, D], K >= 1.
        hidden, cell: [K, H].
    """
    pooled = torch.relu(linear(theta, "pool", inputs)).amax(0, keepdim=True)
    x = linear(theta, "project", inputs) + pooled
    return lstm_cell(x, hidden, cell, theta["input_weight"], theta["hidden_weight"], theta["gate_bias"], forget_bias=1.0)
