"""Recurrent networks over short sequences of symbols.

Legend: B batch, L sequence, V symbols, E embedding, H hidden units, G gates of a cell. Weights are [out, in], as in torch.

A sequence is a Python loop over a static length, so that it vectorises over particles, differentiates and compiles like any other model.
Names, order of gates and formulas are those of `torch.nn.RNN`, `GRU` and `LSTM`, with one bias a gate: torch's second one is redundant
everywhere except in GRU's candidate, where it stands inside the reset product and is `bias_hn`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.names import nearest
from metaopt.tasks.models.parts import linear, weight
from metaopt.tasks.models.sequence import embed, symbol_vectors
from metaopt.tasks.task import Params

__all__ = ["CELLS", "GATES", "RecurrentNet"]

GATES = {"rnn": 1, "irnn": 1, "gru": 3, "lstm": 4}
CELLS = tuple(GATES)
_IRNN_INPUT = 0.1  # share of the usual input weights: a state that forgets nothing adds them up over the whole sequence
_FORGET_BIAS = 1.0


@dataclass(frozen=True)
class RecurrentNet:
    """An embedding, recurrent layers and a linear layer on every state: logits of the next symbol at each position.

    Cells: "rnn" (tanh), "irnn" (rectified, recurrent weights begin at the identity), "gru", "lstm" (forget gates begin with a bias of 1).
    Every run starts from a zero state.

    Source: Elman, 1990, "Finding structure in time"; Le, Jaitly, Hinton, 2015, "A simple way to initialize recurrent networks of rectified
    linear units" (differs: input weights are a tenth of ours elsewhere, theirs have standard deviation 0.001); Cho et al., 2014, "Learning
    phrase representations using RNN encoder-decoder"; Hochreiter, Schmidhuber, 1997, "Long short-term memory"; Jozefowicz, Zaremba,
    Sutskever, 2015, "An empirical exploration of recurrent network architectures" (the forget bias).
    """

    cell: str
    symbols: int
    embedding: int
    hidden: int
    layers: int = 1
    embeddings: ClassVar[frozenset[str]] = frozenset({"embed.weight"})

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise TaskError(f"RecurrentNet cell {self.cell!r} is unknown{nearest(self.cell, CELLS)}")

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights N(0, scale^2 / fan_in) and biases of zero, but for what a cell says otherwise."""
        rows = GATES[self.cell] * self.hidden
        params: Params = {"embed.weight": symbol_vectors(seeds.fold_in(key, 0), self.symbols, self.embedding, scale)}
        for i in range(self.layers):
            name, layer_key = f"cell{i}", seeds.fold_in(key, 2 + i)
            fan_in = self.hidden if i else self.embedding
            params[f"{name}.weight_ih"] = weight(seeds.fold_in(layer_key, 0), (rows, fan_in), scale)
            params[f"{name}.weight_hh"] = weight(seeds.fold_in(layer_key, 1), (rows, self.hidden), scale)
            params[f"{name}.bias"] = scale.new_zeros(rows)
            if self.cell == "irnn":
                params[f"{name}.weight_ih"] = params[f"{name}.weight_ih"] * _IRNN_INPUT
                params[f"{name}.weight_hh"] = torch.eye(self.hidden, dtype=scale.dtype, device=scale.device)
            elif self.cell == "gru":
                params[f"{name}.bias_hn"] = scale.new_zeros(self.hidden)
            elif self.cell == "lstm":
                forget = torch.arange(rows, device=scale.device) // self.hidden == 1
                params[f"{name}.bias"] = forget.to(scale.dtype) * _FORGET_BIAS
        params["head.weight"] = weight(seeds.fold_in(key, 1), (self.symbols, self.hidden), scale)
        params["head.bias"] = scale.new_zeros(self.symbols)
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, L, V] of symbols [B, L]; those at a position depend on it and on earlier ones."""
        sequence = embed(params, "embed", inputs)
        for i in range(self.layers):
            sequence = self.run(params, f"cell{i}", sequence)
        return linear(params, "head", sequence)

    def run(self, params: Params, name: str, inputs: Tensor) -> Tensor:
        """Return the states [B, L, H] of one recurrent layer over inputs [B, L, fan_in], from a zero state."""
        driven = inputs @ params[f"{name}.weight_ih"].T + params[f"{name}.bias"]
        recurrent = params[f"{name}.weight_hh"].T
        hidden = memory = driven.new_zeros(inputs.shape[0], self.hidden)
        states = []
        for from_input in driven.unbind(1):
            from_state = hidden @ recurrent
            if self.cell == "gru":
                hidden = _gru(from_input, from_state, params[f"{name}.bias_hn"], hidden)
            elif self.cell == "lstm":
                hidden, memory = _lstm(from_input + from_state, memory)
            else:
                hidden = torch.relu(from_input + from_state) if self.cell == "irnn" else torch.tanh(from_input + from_state)
            states.append(hidden)
        return torch.stack(states, 1)


def _gru(from_input: Tensor, from_state: Tensor, candidate_bias: Tensor, hidden: Tensor) -> Tensor:
    width = hidden.shape[-1]
    reset, update = torch.sigmoid((from_input + from_state)[..., : 2 * width]).chunk(2, -1)
    candidate = torch.tanh(from_input[..., 2 * width :] + reset * (from_state[..., 2 * width :] + candidate_bias))
    return candidate + update * (hidden - candidate)


def _lstm(gates: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    enter, forget, cell, out = gates.chunk(4, -1)
    memory = torch.sigmoid(forget) * memory + torch.sigmoid(enter) * torch.tanh(cell)
    return torch.sigmoid(out) * torch.tanh(memory), memory
