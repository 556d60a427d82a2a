"""Hierarchical RNN: recurrent cells for every weight, every tensor and the model; means go up, biases come down.

Legend: n weights of one tensor, K tensors, S time scales, A/B/C units of the cells of a weight, a tensor, and the model.

Source: Wichrowska et al., 2017, "Learned optimizers that scale and generalize", and its code release. Differs: see `HierarchicalRNN`.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from metaopt import seeds
from metaopt.learners.update_rules.classic import root
from metaopt.learners.update_rules.model_rule import ModelState, Params
from metaopt.learners.update_rules.rule import State, Theta
from metaopt.learners.update_rules.tensor_lstm import linear

__all__ = ["FEATURES", "HierarchicalRNN", "gru_cell"]

SCALES = 4
# Inputs of a weight's cell; time scales double from one to the next.
FEATURES = (
    *(f"scaled momentum {i}" for i in range(SCALES)),
    *(f"log second moment {i} over their mean" for i in range(SCALES)),
    "log rate over the tensor's mean",
)
_LARGEST_LOG_RATE = 33.0
# Logits of what cells keep at first, of the decays of input and scale, and of the momentum of the log rate; initial scale of weights.
_KEEP, _INPUT_DECAY, _SCALE_DECAY, _RATE_MOMENTUM = 2.2, 2.2, 3.2, 3.2
_WEIGHT_SCALE = 0.5


def gru_cell(x: Tensor, h: Tensor, gates: tuple[Tensor, Tensor], candidate: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
    """Return h' = u h + (1 - u) tanh(W [x, r h] + c), with r and u sigmoids of affine functions of [x, h].

    Args:
        x, h: [..., D], [..., H].
        gates: weight [2H, D + H] and bias [2H] of r and u.
        candidate: weight [H, D + H] and bias [H].
        bias: [3H], added to r, u and the candidate inside their functions.

    Source: Cho et al., 2014, "Learning phrase representations using RNN encoder-decoder"; the bias from above is Wichrowska et al.'s.
    """
    size = h.shape[-1]
    both = torch.cat([x, h], -1) @ gates[0].mT + gates[1] + bias[..., : 2 * size]
    reset, keep = torch.sigmoid(both).chunk(2, -1)
    new = torch.tanh(torch.cat([x, reset * h], -1) @ candidate[0].mT + candidate[1] + bias[..., 2 * size :])
    return keep * h + (1.0 - keep) * new


@dataclass(frozen=True)
class HierarchicalRNN:
    """step = exp(log rate - 1) * direction at unit RMS; each weight has its own log rate, decays of momenta and of their scale.

    Momenta m_i over doubling time scales (decay d, its root, ...) are divided by their running RMS and squashed by asinh. The cell of a
    weight reads them; from its state come direction, decays and the change of the log rate. The cell of a tensor reads means over its
    weights, the model's the mean over tensors; each is a bias of all cells below, at the next step. State: 84 bytes a weight at A=10.
    It reads neither loss nor horizon.

    Differs: no look-ahead, which would move the point where gradients are taken; all log rates begin at a learned number (the release draws
    them, and so does not begin the same twice); the model's cell reads the mean over all tensors (the release passes the last one);
    momenta go straight to the direction through learned weights, which the release has as an option.

    Attributes:
        start: "adam" begins with a direction that is the mean of squashed momenta at unit RMS, "random" adds the weight's cell with random
            weights.
        weight_hidden, tensor_hidden, model_hidden: units of the three cells.
        rate: initial log rate is log(rate) + 1, so that steps begin at this RMS, (0, inf).
    """

    start: Literal["adam", "random"] = "adam"
    weight_hidden: Annotated[int, Ge(1)] = 10
    tensor_hidden: Annotated[int, Ge(1)] = 20
    model_hidden: Annotated[int, Ge(1)] = 20
    rate: Annotated[float, Gt(0)] = 1e-3
    name: str = field(init=False, default="hierarchical_rnn")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)
    needs_loss: bool = field(init=False, default=False)
    needs_horizon: bool = field(init=False, default=False)

    def init_theta(self, seed: int) -> Theta:
        """Return cells (`weight_*`, `tensor_*`, `model_*`), biases from above (`tensor_to_weight_*`, ...), readouts and initial states."""
        a, b, c, inputs = self.weight_hidden, self.tensor_hidden, self.model_hidden, len(FEATURES)

        def draw(name: str, outputs: int, fan_in: int) -> Tensor:
            return seeds.normal(seeds.key("rule", seed, name), (outputs, fan_in)).clamp(-2.0, 2.0) * (_WEIGHT_SCALE / math.sqrt(fan_in))

        theta: Theta = {}
        for level, size, fan_in in (("weight", a, inputs), ("tensor", b, a + inputs), ("model", c, b)):
            theta[f"{level}_gates_weight"] = draw(f"{level} gates", 2 * size, fan_in + size)
            theta[f"{level}_gates_bias"] = torch.full((2 * size,), _KEEP)
            theta[f"{level}_candidate_weight"] = draw(f"{level} candidate", size, fan_in + size)
            theta[f"{level}_candidate_bias"] = torch.zeros(size)
            theta[f"{level}_initial"] = 2.0 * seeds.uniform(seeds.key("rule", seed, f"{level} initial"), (size,)) - 1.0
        for above, below, size, fan_in in (("tensor", "weight", a, b), ("model", "weight", a, c), ("model", "tensor", b, c)):
            theta[f"{above}_to_{below}_weight"] = draw(f"{above} to {below}", 3 * size, fan_in)
            theta[f"{above}_to_{below}_bias"] = torch.zeros(3 * size)
        readouts = {"direction": 0.0, "input_decay": _INPUT_DECAY, "scale_decay": _SCALE_DECAY, "rate": 0.0}
        for name, bias in readouts.items():
            weight = draw(name, 1, a)
            silent = name == "rate" or (name == "direction" and self.start == "adam")
            theta[f"{name}_weight"] = torch.zeros_like(weight) if silent else weight
            if name != "direction":
                theta[f"{name}_bias"] = torch.full((1,), bias)
        theta["shortcut"] = torch.full((SCALES,), 1.0 / SCALES)
        theta["rate_momentum"] = torch.full((1,), _RATE_MOMENTUM)
        theta["rate_offset"] = torch.full((1,), -1.0)
        theta["initial_log_rate"] = torch.full((1,), math.log(self.rate) + 1.0)
        return theta

    def init_state(self, theta: Theta, params: Params) -> ModelState:
        """Return zero momenta and decays (the first gradient counts in full), and initial states and log rates from theta."""
        like = next(iter(params.values()), theta["model_initial"])
        return {
            "tensors": {name: self._fresh(theta, param) for name, param in params.items()},
            "shared": {"hidden": theta["model_initial"].to(like).clone()},
        }

    @staticmethod
    def _fresh(theta: Theta, param: Tensor) -> State:
        weight, tensor = (theta[f"{level}_initial"].to(param) for level in ("weight", "tensor"))
        momenta = param.new_zeros((SCALES, *param.shape))
        return {
            "m": momenta,
            "v": torch.zeros_like(momenta),
            "input_decay": torch.zeros_like(param),
            "scale_decay": torch.zeros_like(param),
            "log_rate": theta["initial_log_rate"].to(param).expand(param.numel()).reshape(param.shape).clone(),
            "hidden": weight.expand(*param.shape, weight.shape[0]).clone(),
            "tensor_hidden": tensor.clone(),
        }

    def update(
        self, theta: Theta, params: Params, grads: Params, state: ModelState, t: Tensor, loss: Tensor | None, horizon: Tensor | None
    ) -> tuple[Params, ModelState]:
        """Return (steps by name, state)."""
        tensors, model = dict(state["tensors"]), state["shared"]["hidden"]
        steps = {name: torch.zeros_like(param) for name, param in params.items() if not param.numel()}
        names = [name for name in params if name not in steps]
        if not names:
            return steps, {"tensors": tensors, "shared": {"hidden": model}}
        above = {below: linear(theta, f"model_to_{below}", model) for below in ("weight", "tensor")}
        means = []
        for name in names:
            steps[name], tensors[name], mean = self._weights(theta, grads[name], tensors[name], above["weight"])
            means.append(mean)
        before = torch.stack([tensors[name]["tensor_hidden"] for name in names])
        after = gru_cell(torch.stack(means), before, *_cell(theta, "tensor"), above["tensor"])
        for i, name in enumerate(names):
            tensors[name] = {**tensors[name], "tensor_hidden": after[i]}
        model = gru_cell(after.mean(0), model, *_cell(theta, "model"), model.new_zeros(3 * model.shape[0]))
        return steps, {"tensors": tensors, "shared": {"hidden": model}}

    def _weights(self, theta: Theta, grad: Tensor, state: State, from_model: Tensor) -> tuple[Tensor, State, Tensor]:
        """Return (step, state, what the tensor's cell reads: means [A + 9] of states and inputs)."""
        shape, momenta = grad.shape, _momenta(grad.reshape(-1), {key: state[key].reshape(SCALES, -1) for key in ("m", "v")}, state)
        scaled, moments = momenta
        log_rate = state["log_rate"].reshape(-1)
        sizes = torch.log(moments["v"] + 1e-16)
        inputs = torch.cat([scaled, sizes - sizes.mean(0), (log_rate - log_rate.mean()).unsqueeze(0)]).mT
        bias = linear(theta, "tensor_to_weight", state["tensor_hidden"]) + from_model
        hidden = gru_cell(inputs, state["hidden"].reshape(inputs.shape[0], -1), *_cell(theta, "weight"), bias)
        direction = (hidden @ theta["direction_weight"].mT).squeeze(-1) + theta["shortcut"] @ scaled
        direction = direction * torch.rsqrt((direction * direction).mean().reshape(1) + 1e-16)
        decays = {key: torch.sigmoid(linear(theta, key, hidden)).reshape(shape) for key in ("input_decay", "scale_decay")}
        wanted = (log_rate + linear(theta, "rate", hidden).squeeze(-1)).clamp(-_LARGEST_LOG_RATE, _LARGEST_LOG_RATE)
        momentum = torch.sigmoid(theta["rate_momentum"])
        step = torch.exp(wanted + theta["rate_offset"]) * direction
        new = {
            **{key: value.reshape(SCALES, *shape) for key, value in moments.items()},
            **decays,
            "log_rate": (momentum * log_rate + (1.0 - momentum) * wanted).reshape(shape),
            "hidden": hidden.reshape(*shape, -1),
            "tensor_hidden": state["tensor_hidden"],
        }
        return step.reshape(shape), new, torch.cat([hidden.mean(0), inputs.mean(0)])


def _cell(theta: Theta, level: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    gates, candidate = ((theta[f"{level}_{part}_weight"], theta[f"{level}_{part}_bias"]) for part in ("gates", "candidate"))
    return gates, candidate


def _momenta(grad: Tensor, moments: State, state: State) -> tuple[Tensor, State]:
    """Return (squashed momenta in units of their running RMS [S, n], momenta and mean squares)."""
    decays = [state["input_decay"].reshape(-1)]
    for _ in range(SCALES - 1):
        decays.append(root(decays[-1]))
    decay, scale_decay = torch.stack(decays), state["scale_decay"].reshape(-1)
    m = (1.0 - decay) * grad + decay * moments["m"]
    v = (1.0 - scale_decay) * (m * m + 1e-12) + scale_decay * moments["v"]
    return torch.asinh(m * torch.rsqrt(v + 1e-16)), {"m": m, "v": v}
