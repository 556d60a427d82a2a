"""The coordinate-wise LSTM: every weight has a small recurrent network of its own, all of them with the same parameters.

Legend: n weights of one tensor, F features, H units, L layers. One matrix product serves all weights of a tensor.

Source: Andrychowicz et al., 2016, "Learning to learn by gradient descent by gradient descent" (inputs "dm" with p = 10, "raw" for their
quadratics; output times 0.01); Lv, Jiang, Li, 2017, "Learning gradient descent: better generalization and longer horizons" (RNNprop: inputs
"rnnprop", output 0.1 tanh). Differs: the output is subtracted in all three, as any direction here is; one bias vector a cell, and a forget
gate that starts at +1; no epsilon where the second moment is zero, so that `eps` may be 0; an optional linear path beside the LSTM.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners.lstm_cell import lstm_cell
from metaopt.learners.update_rules.classic import one_minus_power, root
from metaopt.learners.update_rules.rule import State, Theta

__all__ = ["FEATURES", "LSTMRule", "log_and_sign"]

Inputs = Literal["dm", "rnnprop", "raw"]

FEATURES: dict[Inputs, tuple[str, ...]] = {
    "dm": ("log size of gradient", "sign of gradient"),
    "rnnprop": ("normalised momentum 0.95", "normalised gradient"),
    "raw": ("gradient",),
}
_SCALES: dict[Inputs, float] = {"dm": 0.01, "rnnprop": 0.1, "raw": 0.01}
_DECAY = 0.95  # of both moments
_FORGET = 1.0
_ADAM_RATE = 0.1  # of the start, times `output_scale`


def log_and_sign(grad: Tensor, p: float = 10.0) -> tuple[Tensor, Tensor]:
    """Return (ln|g| / p, sign g) where |g| >= e^-p, else (-1, e^p g): continuous, and differentiable but at the switch.

    Below e^-p the size is in the second number alone, on a linear scale: far below it the LSTM cannot tell gradients from zero.
    """
    size = grad.abs()
    large = size >= math.exp(-p)
    logarithm = torch.log(torch.where(large, size, 1.0)) / p
    return torch.where(large, logarithm, -1.0), torch.where(large, torch.sign(grad), math.exp(p) * grad)


@dataclass(frozen=True)
class LSTMRule:
    """direction = output_scale * out, where out is a linear readout of the last layer (through tanh for "rnnprop").

    Attributes:
        inputs: what the LSTM sees. "dm": logarithm and sign of the gradient; "rnnprop": Adam's normalised momentum and the gradient over
            the root of the second moment, both decays 0.95, through a linear layer and ELU; "raw": the gradient.
        start: "adam" lets the linear path pass on a tenth of the normalised momentum, which is Adam with betas 0.95 at a rate of
            `output_scale` / 10, and the LSTM adds nothing yet (needs inputs "rnnprop" and `skip`); "random" has random weights, and a
            linear path of zeros.
        hidden: units of each layer.
        layers: LSTM layers.
        output_scale: size of a unit output, (0, inf); None for the published one: 0.01, "rnnprop" 0.1.
        skip: whether the output also has a linear readout of the features, outside the tanh. Published: no.
        second_order: whether meta-gradients pass through the gradients that the LSTM reads. Published: no.
        eps: beside the root of the second moment; with 0, and inputs "rnnprop", no step depends on the scale of the loss.
    """

    inputs: Inputs = "rnnprop"
    start: Literal["adam", "random"] = "adam"
    hidden: Annotated[int, Ge(1)] = 20
    layers: Annotated[int, Ge(1)] = 2
    output_scale: Annotated[float, Gt(0)] | None = None
    skip: bool = True
    second_order: bool = False
    eps: Annotated[float, Ge(0)] = 1e-8
    name: str = field(init=False, default="lstm")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)

    def __post_init__(self) -> None:
        """Refuse a start that the options cannot have."""
        if self.start == "adam" and not (self.inputs == "rnnprop" and self.skip):
            given = f"inputs {self.inputs} and skip {str(self.skip).lower()}"
            raise ConfigError(f"start adam needs inputs rnnprop and skip true, got {given}; set start to random")

    @property
    def features(self) -> tuple[str, ...]:
        """What the LSTM reads, in order."""
        return FEATURES[self.inputs]

    def init_theta(self, seed: int) -> Theta:
        """Return the weights of "rnnprop"'s first layer, of the LSTM (gates i, g, f, o) and its readout, and of the linear path if any."""
        features, hidden = len(self.features), self.hidden

        def weights(place: int, fan_out: int, fan_in: int) -> Tensor:
            return seeds.normal(seeds.key("rule", seed, place), (fan_out, fan_in)).clamp(-2.0, 2.0) / math.sqrt(fan_in)

        theta, width = {}, features
        if self.inputs == "rnnprop":
            theta = {"embedding_weight": weights(0, hidden, features), "embedding_bias": torch.zeros(hidden)}
            width = hidden
        for layer in range(self.layers):
            both = weights(2 + layer, 4 * hidden, width + hidden)
            theta[f"input_weight{layer}"] = both[:, :width].clone()
            theta[f"hidden_weight{layer}"] = both[:, width:].clone()
            theta[f"gate_bias{layer}"] = torch.zeros(4 * hidden)
            width = hidden
        theta["output_weight"] = weights(1, 1, hidden)[0]
        theta["output_bias"] = torch.zeros(1)
        if self.start == "adam":
            theta["output_weight"] = torch.zeros(hidden)
        if self.skip:
            theta["skip_weight"] = torch.zeros(features)
            theta["skip_weight"][0] = _ADAM_RATE if self.start == "adam" else 0.0
        return theta

    def init_state(self, param: Tensor) -> State:
        """Return zero h and c [L, n, H], and for "rnnprop" the two zero moments."""
        cells = {name: param.new_zeros((self.layers, param.numel(), self.hidden)) for name in ("h", "c")}
        moments = {name: torch.zeros_like(param) for name in ("m", "v")} if self.inputs == "rnnprop" else {}
        return {**cells, **moments}

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (step, state)."""
        features, moments = self._features(grad if self.second_order else grad.detach(), state, t)
        x = torch.stack([feature.reshape(-1) for feature in features], -1)  # [n, F]
        out: Tensor | float = (x @ theta["skip_weight"]) if self.skip else 0.0
        if self.inputs == "rnnprop":
            x = F.elu(x @ theta["embedding_weight"].mT + theta["embedding_bias"])
        hs, cs = [], []
        for layer in range(self.layers):
            inward, recurrent, bias = (theta[f"{part}{layer}"] for part in ("input_weight", "hidden_weight", "gate_bias"))
            x, cell = lstm_cell(x, state["h"][layer], state["c"][layer], inward, recurrent, bias, forget_bias=_FORGET)
            hs.append(x)
            cs.append(cell)
        read = x @ theta["output_weight"] + theta["output_bias"]
        out = out + (torch.tanh(read) if self.inputs == "rnnprop" else read)
        scale = _SCALES[self.inputs] if self.output_scale is None else self.output_scale
        return (scale * out).reshape(param.shape), {"h": torch.stack(hs), "c": torch.stack(cs), **moments}

    def _features(self, grad: Tensor, state: State, t: Tensor) -> tuple[tuple[Tensor, ...], State]:
        """Return the features, each of the gradient's shape, and the moments."""
        if self.inputs == "raw":
            return (grad,), {}
        if self.inputs == "dm":
            return log_and_sign(grad), {}
        m = _DECAY * state["m"] + (1 - _DECAY) * grad
        v = _DECAY * state["v"] + (1 - _DECAY) * grad * grad
        correction = one_minus_power(_DECAY, t + 1, grad)
        size = root(v) / torch.sqrt(correction) + self.eps
        size = torch.where(size > 0, size, 1.0)
        return (m / correction / size, grad / size), {"m": m, "v": v}
