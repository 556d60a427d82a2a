"""The LSTM on every edge: its gates read both messages through factored products, its state is read out in both directions.

With f_a the forward message of input a, q_b the backward message of output b, and h_ab, c_ab the state of the edge,

    (g, i, f, o) = Wf f_a + Wq q_b + U h_ab + beta
    c' = sigmoid(f + forget_bias) c + sigmoid(i - input_bias) tanh(g),    h' = sigmoid(o) tanh(c')
    forward readout F h' + phi,    backward readout G h' + gamma

Gates stand in the order g, i, f, o; `metaopt.learners.lstm_cell` has them in the order i, g, f, o.
The products of messages are made once for an input and once for an output: the one of each edge is [N] -> [4N] only.

Legend: N state size, M message size, Bx examples side by side, A inputs, B outputs.

Source: Kirsch, Schmidhuber, 2021, "Meta learning backpropagation and improving it" (2012.14905), section 3; offsets of the gates and the
initial state after its release. Differs: smaller offsets (a released input gate of sigmoid(-5) moves a cell by under one per cent, and
meta-training takes off several times later).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners.per_weight.edge import EdgeState, Theta

__all__ = ["CellSpec", "LSTMCell", "init_cell_theta", "truncated_normal"]

_EPS = 1e-5  # of the layer norms
_CUT = 2.0  # standard deviations at which initial states are cut off


@dataclass(frozen=True)
class CellSpec:
    """Sizes and constants of the cell; 2,384 weights at the defaults, 2,416 with layer norms.

    Attributes:
        state: N, >= 2.
        message: M, >= 2: examples come in by channel 0, predictions go out by channel 1.
        input_bias: subtracted from input gates; what meta-training takes off by (see the module).
        forget_bias: added to forget gates.
        layer_norm: whether messages are normalised before they are reduced.
    """

    state: int = 16
    message: int = 8
    input_bias: float = 1.0
    forget_bias: float = 3.0
    layer_norm: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that leave nothing to share or no channel for predictions."""
        if self.state < 2:
            raise ConfigError(f"per-weight state must be >= 2, got {self.state}; half of it is shared")
        if self.message < 2:
            raise ConfigError(f"per-weight message must be >= 2, got {self.message}; channel 1 holds the predictions")


def init_cell_theta(spec: CellSpec, seed: int, prefix: str = "cell.") -> dict[str, Tensor]:
    """Return random weights by name, normal with variance 1 / fan-in (gates: 2M + N), zero biases, unit gains; float32."""
    n, m = spec.state, spec.message
    gates, out = (2 * m + n) ** -0.5, n**-0.5
    shapes = {
        "forward_weight": ((4 * n, m), gates),
        "backward_weight": ((4 * n, m), gates),
        "state_weight": ((4 * n, n), gates),
        "bias": ((4 * n,), 0.0),
        "forward_out": ((m, n), out),
        "forward_out_bias": ((m,), 0.0),
        "backward_out": ((m, n), out),
        "backward_out_bias": ((m,), 0.0),
    }
    theta = {name: scale * seeds.normal(seeds.key("per_weight", seed, prefix, name), shape) for name, (shape, scale) in shapes.items()}
    if spec.layer_norm:
        for way in ("forward", "backward"):
            theta |= {f"{way}_gain": torch.ones(m), f"{way}_shift": torch.zeros(m)}
    return {f"{prefix}{name}": value for name, value in theta.items()}


def truncated_normal(key: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return standard normal numbers, conditioned on lying within two standard deviations."""
    edge = math.erf(_CUT / math.sqrt(2.0))
    return math.sqrt(2.0) * torch.erfinv((2.0 * seeds.uniform(key, shape, dtype) - 1.0) * edge)


@dataclass(frozen=True)
class LSTMCell:
    """The cell of a `CellSpec`; its theta has the names of `init_cell_theta` without the prefix.

    State: `h` and `c`, [Bx, *edges, N] each, the first half of both shared.
    """

    spec: CellSpec = CellSpec()

    @property
    def message(self) -> int:
        """M."""
        return self.spec.message

    @property
    def affine(self) -> bool:
        """Readouts are affine unless they are normalised."""
        return not self.spec.layer_norm

    @property
    def shared(self) -> Mapping[str, int]:
        """The first half of `h` and `c`."""
        return {"h": self.spec.state // 2, "c": self.spec.state // 2}

    def fresh(self, theta: Theta, key: Tensor, edges: Sequence[int], fan_in: int) -> EdgeState:
        """Return zeros, but truncated normals of variance 1 / fan_in in the shared half of `c`: what tells one hidden unit from another."""
        dtype, half = theta["bias"].dtype, self.spec.state // 2
        drawn = truncated_normal(key, (*edges, half), dtype) * fan_in**-0.5
        rest = drawn.new_zeros((*edges, self.spec.state - half))
        return {"h": drawn.new_zeros((*edges, self.spec.state)), "c": torch.cat([drawn, rest], -1)}

    def drive(self, theta: Theta, forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
        """Return the messages' part of the gates [Bx, *edges, 4N], constants included, and the weights of the state's part.

        Two small products and one sum for each edge. Rows of g are doubled, see `tick`.
        """
        n, bias = self.spec.state, theta["bias"]
        new, enter, keep, leave = torch.split(bias, n)
        offset = torch.cat([2.0 * new, enter - self.spec.input_bias, keep + self.spec.forget_bias, leave])
        scale = torch.cat([bias.new_full((n, 1), 2.0), bias.new_ones((3 * n, 1))])
        below = _linear(backward, scale * theta["backward_weight"]) + offset
        return _linear(forward, scale * theta["forward_weight"]) + below, scale * theta["state_weight"]

    def tick(self, theta: Theta, state: EdgeState, drive: tuple[Tensor, Tensor]) -> EdgeState:
        """Return the state after the gates acted once.

        tanh(x) is 2 sigmoid(2 x) - 1 here, so that all gates are one call: torch's tanh takes several times longer on a CPU.
        """
        gates = (_linear(state["h"], drive[1]) + drive[0]).sigmoid_()
        new, enter, keep, leave = torch.split(gates, self.spec.state, -1)
        c = torch.addcmul(keep * state["c"] - enter, enter, new, value=2.0)
        return {"h": torch.addcmul(-leave, leave, torch.sigmoid(2.0 * c), value=2.0), "c": c}

    def readable(self, state: EdgeState) -> Tensor:
        """Return h."""
        return state["h"]

    def read_forward(self, theta: Theta, seen: Tensor) -> Tensor:
        """Return F h + phi, normalised over M if the spec says so."""
        return self._read(theta, seen, "forward")

    def read_backward(self, theta: Theta, seen: Tensor) -> Tensor:
        """Return G h + gamma, normalised over M if the spec says so."""
        return self._read(theta, seen, "backward")

    def _read(self, theta: Theta, seen: Tensor, way: str) -> Tensor:
        out = _linear(seen, theta[f"{way}_out"]) + theta[f"{way}_out_bias"]
        if not self.spec.layer_norm:
            return out
        return F.layer_norm(out, (self.spec.message,), theta[f"{way}_gain"], theta[f"{way}_shift"], _EPS)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return x [..., I] times weight [O, I], as one product of two matrices: under vmap over weights, one product a particle."""
    return (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], weight.shape[0])
