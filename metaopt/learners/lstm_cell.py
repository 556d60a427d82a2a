"""One step of an LSTM from plain matrix products, for everything here that has one.

Fused recurrent kernels have no second derivative and other bits on every device. Gates lie in the order input, candidate, forget, output
(i, g, f, o); torch's own cell has i, f, g, o, and two bias vectors where this one has their sum.

Source: Hochreiter, Schmidhuber, 1997, "Long short-term memory"; Gers et al., 2000, "Learning to forget" (the forget gate).
"""

import torch
from torch import Tensor

__all__ = ["lstm_cell"]


def lstm_cell(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    input_weight: Tensor,
    hidden_weight: Tensor,
    bias: Tensor,
    forget_bias: float = 0.0,
    input_bias: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return (h, c) after one step: c' = sigmoid(f + forget_bias) * c + sigmoid(i - input_bias) * tanh(g), h' = sigmoid(o) * tanh(c').

    Legend: D inputs, H units; `...` are batch axes, which broadcast. One dtype and device throughout; differentiable twice and more.

    Args:
        x: [..., D].
        h, c: [..., H].
        input_weight: [4H, D], rows of the gates i, g, f, o.
        hidden_weight: [4H, H].
        bias: [4H].
        forget_bias: added to the forget gate: an untrained cell remembers.
        input_bias: taken from the input gate: an untrained cell is slow to believe.
    """
    gates = x @ input_weight.mT + (h @ hidden_weight.mT + bias)
    into, candidate, forget, out = gates.chunk(4, -1)
    c = torch.sigmoid(forget + forget_bias) * c + torch.sigmoid(into - input_bias) * torch.tanh(candidate)
    return torch.sigmoid(out) * torch.tanh(c), c
