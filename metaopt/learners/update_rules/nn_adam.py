"""Adam whose four numbers an LSTM moves at every step, for each tensor on its own.

Source: the neural-network Adam of Metz et al., 2022, "VeLO" and its code release; Kingma, Ba, 2015, "Adam", algorithm 1. Differs: the
direction is Adam's own, bias corrected for betas that change, so that the untrained rule is Adam; gradients are not clipped (the
LSTM's inputs are); the state holds what steps added to the initial values in theta, so that it begins without theta.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.learners.update_rules.classic import root
from metaopt.learners.update_rules.rule import State, Theta

__all__ = ["FEATURES", "NNAdam"]

# Inputs of the LSTM, in alphabetical order of the names of the code release.
FEATURES = (
    "log 1 - beta1", "log 1 - beta2", "log epsilon", "is vector", "is scalar", "log rate", "log mean gradient", "sign mean gradient",
    "log mean magnitude of gradient", "log mean momentum", "sign mean momentum", "log mean weight", "sign mean weight",
    "log mean second moment", "sign mean second moment", "log variance gradient", "log variance momentum", "log variance weight",
    "log variance second moment",
)  # fmt: skip
# Controls are tenths of logarithms, so that one output unit of the LSTM moves them all at about the same pace.
_TENTH = 0.1
_START = tuple(_TENTH * math.log(value) for value in (1e-3, 0.1, 1e-3, 1e-8))  # rate, 1 - beta1, 1 - beta2, epsilon
_LOWEST = tuple(_TENTH * value for value in (math.log(1e-8), -10.0, -10.0, math.log(1e-11)))
_HIGHEST = tuple(_TENTH * value for value in (math.log(1e3), 0.0, 0.0, math.log(1e4)))
_OUTPUT_SCALE = 0.01


@dataclass(frozen=True)
class NNAdam:
    """Adam's step with rate, betas and epsilon from the tensor's own controls, which the LSTM moves after each step.

    Attributes:
        start: "adam" begins with an LSTM that is not listened to: Adam at its defaults; "random" with random output weights.
        hidden: units of the LSTM.
    """

    start: Literal["adam", "random"] = "adam"
    hidden: Annotated[int, Ge(1)] = 32
    name: str = field(init=False, default="nn_adam")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)

    def init_theta(self, seed: int) -> Theta:
        """Return the LSTM (gates input, cell, forget, output), its initial state, the output layer, and the four initial controls."""
        inputs, hidden = len(FEATURES), self.hidden

        def weights(i: int, fan_out: int, fan_in: int) -> Tensor:
            return seeds.normal(seeds.key("rule", seed, i), (fan_out, fan_in)).clamp(-2.0, 2.0) / math.sqrt(fan_in)

        both = weights(0, 4 * hidden, inputs + hidden)
        output = weights(1, 4, hidden)
        return {
            "input_weight": both[:, :inputs].clone(),
            "hidden_weight": both[:, inputs:].clone(),
            "gate_bias": torch.zeros(4 * hidden),
            "output_weight": output if self.start == "random" else torch.zeros_like(output),
            "output_bias": torch.zeros(4),
            "initial_hidden": torch.zeros(hidden),
            "initial_cell": torch.zeros(hidden),
            "initial_controls": torch.tensor(_START),
        }

    def init_state(self, param: Tensor) -> State:
        """Return Adam's two moments and, of the LSTM, what the steps add to the initial state in theta; all zero."""
        state = {"m": torch.zeros_like(param), "v": torch.zeros_like(param)}
        sizes = {"moved": 4, "hidden": self.hidden, "cell": self.hidden}
        return {**state, **{name: param.new_zeros(size) for name, size in sizes.items()}, "correction": param.new_zeros(2)}

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (step under the present controls, state with the next ones)."""
        controls = theta["initial_controls"] + state["moved"]
        low, high = (torch.tensor(bound, dtype=param.dtype, device=param.device) for bound in (_LOWEST, _HIGHEST))
        rate, rest1, rest2, eps = torch.exp(controls.clamp(low, high) / _TENTH).unbind(0)
        m = (1 - rest1) * state["m"] + rest1 * grad
        v = (1 - rest2) * state["v"] + rest2 * grad * grad
        rest = torch.stack([rest1, rest2])
        correction = (1 - rest) * state["correction"] + rest  # 1 - product of the betas so far, as an average of ones
        step = rate * (m / correction[0]) / (root(v) / torch.sqrt(correction[1]) + eps)
        first = t == 0
        hidden = state["hidden"] + torch.where(first, theta["initial_hidden"], 0.0)
        cell = state["cell"] + torch.where(first, theta["initial_cell"], 0.0)
        hidden, cell = _lstm(theta, _statistics(param, grad, m, v, controls), hidden, cell)
        moved = state["moved"] + _OUTPUT_SCALE * F.linear(hidden, theta["output_weight"], theta["output_bias"])
        return step, {"m": m, "v": v, "moved": moved, "hidden": hidden, "cell": cell, "correction": correction}


def _lstm(theta: Theta, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return (hidden [H], cell [H]) after one step; the forget gate has +1, so that a fresh LSTM remembers."""
    gates = F.linear(inputs, theta["input_weight"], theta["gate_bias"]) + F.linear(hidden, theta["hidden_weight"])
    into, candidate, forget, out = gates.chunk(4)
    cell = torch.sigmoid(forget + 1.0) * cell + torch.sigmoid(into) * torch.tanh(candidate)
    return torch.sigmoid(out) * torch.tanh(cell), cell


def _log_size(value: Tensor) -> Tensor:
    return 0.5 * torch.log(1e-8 + value.abs()).clamp(-5.0, 5.0)


def _statistics(param: Tensor, grad: Tensor, m: Tensor, v: Tensor, controls: Tensor) -> Tensor:
    """Return the 19 inputs of the LSTM in the order of `FEATURES`."""
    flat = torch.stack([grad.reshape(-1), m.reshape(-1), param.reshape(-1), v.reshape(-1)])
    mean = flat.mean(1)
    variance = (flat - mean.unsqueeze(1)).square().mean(1)
    sizes = _log_size(torch.cat([mean, variance, grad.abs().mean().reshape(1)]))
    signs = torch.sign(mean)
    rate, rest1, rest2, eps = (0.2 * controls.clamp(-5.0, 5.0)).unbind(0)
    rank = param.new_tensor([1.0 if param.dim() == 1 else -1.0, 1.0 if param.dim() == 0 else -1.0]).unbind(0)
    return torch.stack([
        rest1, rest2, eps, *rank, rate,
        sizes[0], signs[0], sizes[8],
        *(one for i in (1, 2, 3) for one in (sizes[i], signs[i])),
        *sizes[4:8],
    ])  # fmt: skip
