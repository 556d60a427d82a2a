"""Cells that are known learning rules: with them the very code that runs meta-learned cells *is* backpropagation, to the last bits.

`BackpropCell` keeps a weight w and the last forward and backward products, `OnlineCell` a weight and the last input.
`sgd_lstm_theta` gives a real LSTM cell weights by hand with which it imitates the latter.

Source: Kirsch, Schmidhuber, 2021, "Meta learning backpropagation and improving it" (2012.14905), section 3.1 (the existence proof); the
exact state machines and the hand-set weights are our own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.learners.per_weight.cell import CellSpec
from metaopt.learners.per_weight.edge import EdgeState, Theta

__all__ = ["IMITATION", "BackpropCell", "OnlineCell", "sgd_lstm_theta"]

_OPEN = 40.0  # a gate's argument at which sigmoid is 1 to the last bit of float64, and 4e-18 from 0 on the other side


class _Weights:
    """What both have in common: two channels, a weight that is shared and fresh from N(0, 1 / fan_in)."""

    message = 2
    affine = True
    shared: Mapping[str, int] = {"weight": 1}
    entries: tuple[str, ...]

    def fresh(self, theta: Theta, key: Tensor, edges: Sequence[int], fan_in: int) -> EdgeState:
        """Return a random weight, and zeros."""
        weight = seeds.normal(key, (*edges, 1), theta["step"].dtype) * fan_in**-0.5
        return {"weight": weight} | {name: torch.zeros_like(weight) for name in self.entries}

    def drive(self, theta: Theta, forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
        """Return channel 0 of both messages."""
        return forward[..., :1], backward[..., :1]


@dataclass(frozen=True)
class BackpropCell(_Weights):
    """Backpropagation and SGD on a tanh network without biases, with the schedule `forward_backward`, clear messages, one tick and sums.

    With z the forward and d the backward message, x = tanh(z), or z where theta's `raw` is 1 (the first layer):
    up = w x,  down = w x' d,  w' = w - step x d. Theta: `step` and `raw`, 0-d, for each layer (`tied=False`).
    """

    entries = ("up", "down")

    def tick(self, theta: Theta, state: EdgeState, drive: tuple[Tensor, Tensor]) -> EdgeState:
        """Return the products of the weight before its step, and the weight after it."""
        z, d = drive
        bent, raw, w = torch.tanh(z), theta["raw"], state["weight"]
        x, slope = raw * z + (1.0 - raw) * bent, raw + (1.0 - raw) * (1.0 - bent * bent)
        return {"weight": w - theta["step"] * x * d, "up": w * x, "down": w * slope * d}

    def readable(self, state: EdgeState) -> Tensor:
        """Return (up, down)."""
        return torch.cat([state["up"], state["down"]], -1)

    def read_forward(self, theta: Theta, seen: Tensor) -> Tensor:
        """Return `up` in both channels: the next layer's input, or the logit."""
        return seen[..., :1].expand(*seen.shape[:-1], 2)

    def read_backward(self, theta: Theta, seen: Tensor) -> Tensor:
        """Return `down` in both channels."""
        return seen[..., 1:].expand(*seen.shape[:-1], 2)


@dataclass(frozen=True)
class OnlineCell(_Weights):
    """SGD on one layer with the schedule `forward` and one tick: w' = w - step stash d, up = w' x, stash' = x.

    The error of an example arrives with the next one, and meets the input that it belongs to in the stash. A second micro-tick would pair
    it with the new input. Theta: `step`, 0-d.
    """

    entries = ("stash", "up")

    def tick(self, theta: Theta, state: EdgeState, drive: tuple[Tensor, Tensor]) -> EdgeState:
        """Return the state after the error of the example before and the input of this one."""
        x, d = drive
        w = state["weight"] - theta["step"] * state["stash"] * d
        return {"weight": w, "stash": x.expand_as(w), "up": w * x}

    def readable(self, state: EdgeState) -> Tensor:
        """Return `up`."""
        return state["up"]

    def read_forward(self, theta: Theta, seen: Tensor) -> Tensor:
        """Return `up` in both channels."""
        return seen.expand(*seen.shape[:-1], 2)

    def read_backward(self, theta: Theta, seen: Tensor) -> Tensor:
        """Return zeros: there is no layer below."""
        return torch.zeros_like(seen).expand(*seen.shape[:-1], 2)


IMITATION = CellSpec(state=5, message=2, input_bias=0.0, forget_bias=0.0)
"""The cell of `sgd_lstm_theta`; schedule `forward`, one tick, sums, a zero initial state."""


def sgd_lstm_theta(size: float, step: float, prefix: str = "cell.") -> dict[str, Tensor]:
    """Return float64 weights with which the LSTM cell `IMITATION` follows online SGD on one layer, up to errors of second order in `size`.

    Unit 0 carries e1 x to the next example. Units (s, r) in {+1, -1}^2 open their input gates by s (alpha / e1) times that, take in
    -kappa times the error, keep everything, and open their output gates by r beta x; a forward message sums s r h. Because
    sigmoid(u) - sigmoid(-u) = tanh(u / 2), the step size is Gamma (beta / 2) (alpha / 2) kappa, from which the gain Gamma follows.

    Args:
        size: scale of all arguments of non-linearities, (0, inf): alpha = beta = size / 2, kappa = e1 = size / 10.
        step: of SGD.
        prefix: of the names.
    """
    n, m = IMITATION.state, IMITATION.message
    alpha = beta = 0.5 * size
    kappa = e1 = 0.1 * size
    gain = step / (0.25 * alpha * beta * kappa)
    new, enter, keep, leave = (n * k for k in range(4))  # rows of the gates g, i, f, o
    shapes = {
        "forward_weight": (4 * n, m),
        "backward_weight": (4 * n, m),
        "state_weight": (4 * n, n),
        "bias": (4 * n,),
        "forward_out": (m, n),
        "forward_out_bias": (m,),
        "backward_out": (m, n),
        "backward_out_bias": (m,),
    }
    theta = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    theta["forward_weight"][new, 0] = e1
    theta["bias"][[enter, leave]] = _OPEN
    theta["bias"][keep] = -_OPEN
    for unit, (s, r) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1)), start=1):
        theta["backward_weight"][new + unit, 0] = -kappa
        theta["state_weight"][enter + unit, 0] = s * alpha / e1
        theta["bias"][keep + unit] = _OPEN
        theta["forward_weight"][leave + unit, 0] = r * beta
        theta["forward_out"][1, unit] = s * r * gain
    return {f"{prefix}{name}": value for name, value in theta.items()}
