"""RNN-MLP: an LSTM for each tensor talks to the network of its weights, and through a mean to the LSTMs of all other tensors.

Legend: n weights of one tensor, K tensors, H units of the LSTM, D decays.

Source: Metz et al., 2020, "Tasks, stability, architecture, and compute: training more effective learned optimizers, and using them to train
themselves", and its code release. Differs: see `RNNMLP`.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners.lstm_cell import lstm_cell
from metaopt.learners.update_rules.features import TIME_SCALES, moving_average, network, random_network, signal_path
from metaopt.learners.update_rules.model_rule import ModelState, Params
from metaopt.learners.update_rules.rule import State, Theta
from metaopt.learners.update_rules.tensor_lstm import init_linear, init_lstm, initial_lstm_state, linear

__all__ = ["FEATURES", "RNNMLP", "TENSOR_FEATURES"]

DECAYS = (0.5, 0.9, 0.99, 0.999, 0.9999)
FROM_MLP, FROM_LSTMS, TO_MLP = 16, 18, 17


def _each(name: str) -> list[str]:
    return [f"{name} {decay}" for decay in DECAYS]


# Inputs of the network; the first 23 differ between weights and are normalised over the tensor.
FEATURES = (
    *("gradient", "weight", "log weight"),
    *_each("momentum"),
    *_each("second moment"),
    *_each("normalised momentum"),
    *_each("inverse root second moment"),
    *(f"sine of time {c:g}" for c in TIME_SCALES),
    *("log tensors", "log norm of weights", "log elements"),
    *(f"from the LSTM {i}" for i in range(TO_MLP)),
)
# Inputs of the LSTM, in alphabetical order of the names of the code release.
TENSOR_FEATURES = (
    *(f"from all LSTMs {i}" for i in range(FROM_LSTMS)),
    *(f"from the network {i}" for i in range(FROM_MLP)),
    *("log norm of gradient", "is scalar", "log mean momentum", "sign mean momentum", "log mean second moment", "sign mean second moment"),
    *("log mean weight", "sign mean weight", "log norm of weights", *(f"log axis {i}" for i in range(4))),
    *("training loss", "validation loss", "log variance momentum", "log variance second moment", "log variance weight"),
)
_ADAM_FEATURE = FEATURES.index("normalised momentum 0.9")
_EXP_MULT = 1e-3
_EPS_V, _EPS_NORM = 1e-6, 1e-5
_CLIP_DECAY, _CLIP_MULT = 0.99, 10.0
_LOSS_DECAY = 0.9


@dataclass(frozen=True)
class RNNMLP:
    """step = step_mult * direction * exp(1e-3 * magnitude), from a network whose inputs the tensor's LSTM extends.

    Theta: the LSTM on 52 inputs, what it sends (`to_mlp_*`, `to_lstms_*`), the network 54-32-32-18 (`w0`, `b0`, ...), and initial messages;
    35,799 numbers. State: 40 bytes a weight, 2 H + 16 floats a tensor, and a few of the model: messages, the gradient's running size, the
    loss's mean and variance. No horizon. Gradients are clipped at ten times their running RMS over all tensors, which begins at 1.

    There is no validation loss while an inner run trains; its input is that of a loss of 0, as the release has it until it is given one.
    Differs: a tensor of shape [] is one of shape [1], scalar both; tensors without elements take no part.

    Attributes:
        start: "adam" begins with a network that passes on momentum over the root second moment of decay 0.9, at unit RMS; "random" with
            random weights.
        lstm_hidden: units of the LSTM.
        mlp_hidden: units in both hidden layers of the network.
        step_mult: size of a unit direction, (0, inf).
    """

    start: Literal["adam", "random"] = "adam"
    lstm_hidden: Annotated[int, Ge(1)] = 64
    mlp_hidden: Annotated[int, Ge(2)] = 32
    step_mult: Annotated[float, Gt(0)] = 1e-3
    name: str = field(init=False, default="rnn_mlp")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)
    needs_loss: bool = field(init=False, default=True)
    needs_horizon: bool = field(init=False, default=False)

    def init_theta(self, seed: int) -> Theta:
        """Return the meta-parameters, see `start`."""
        theta = random_network((len(FEATURES), self.mlp_hidden, self.mlp_hidden, 2 + FROM_MLP), seed)
        if self.start == "adam":
            theta = signal_path(theta, _ADAM_FEATURE)
        first = {"initial_from_mlp": FROM_MLP, "initial_from_lstms": FROM_LSTMS}
        return {
            **theta,
            **init_lstm(len(TENSOR_FEATURES), self.lstm_hidden, seed),
            **init_linear("to_mlp", self.lstm_hidden, TO_MLP, seed),
            **init_linear("to_lstms", self.lstm_hidden, FROM_LSTMS, seed),
            **{
                name: seeds.normal(seeds.key("rule", seed, name), (size,)).clamp(-2.0, 2.0) / math.sqrt(size)
                for name, size in first.items()
            },
        }

    def init_state(self, theta: Theta, params: Params) -> ModelState:
        """Return zero accumulators, initial LSTM states and messages, and running sizes before the first gradient and loss."""
        like = next(iter(params.values()), theta["initial_cell"])
        zero = like.new_zeros(1)
        shared = {
            "from_lstms": theta["initial_from_lstms"].to(like).clone(),
            "clip_size": torch.full_like(zero, 1.0 - _CLIP_DECAY),
            "clip_weight": torch.full_like(zero, 1.0 - _CLIP_DECAY),
            **{name: zero.clone() for name in ("loss_mean", "loss_variance", "loss_weight")},
        }
        return {"tensors": {name: self._fresh(theta, param) for name, param in params.items()}, "shared": shared}

    @staticmethod
    def _fresh(theta: Theta, param: Tensor) -> State:
        moments = {name: param.new_zeros((len(DECAYS), *param.shape)) for name in ("m", "v")}
        return {**moments, **initial_lstm_state(theta, param), "from_mlp": theta["initial_from_mlp"].to(param).clone()}

    def update(
        self, theta: Theta, params: Params, grads: Params, state: ModelState, t: Tensor, loss: Tensor | None, horizon: Tensor | None
    ) -> tuple[Params, ModelState]:
        """Return (steps by name, state).

        Raises:
            ConfigError: no loss.
        """
        if loss is None:
            raise ConfigError("the rule rnn_mlp reads the loss, got None; pass it")
        tensors, shared = dict(state["tensors"]), dict(state["shared"])
        steps = {name: torch.zeros_like(param) for name, param in params.items() if not param.numel()}
        names = [name for name in params if name not in steps]
        if not names:
            return steps, {"tensors": tensors, "shared": shared}
        losses, loss_state = _loss_features(shared, loss)
        clipped, clip_state = _clipped(shared, [grads[name] for name in names])
        for name, grad in zip(names, clipped, strict=True):
            moments = {"m": moving_average(tensors[name]["m"], grad, DECAYS), "v": moving_average(tensors[name]["v"], grad * grad, DECAYS)}
            tensors[name] = {**tensors[name], **moments}
        rows = [
            torch.cat([shared["from_lstms"], tensors[name]["from_mlp"], _tensor_features(params[name], grad, tensors[name], losses)])
            for name, grad in zip(names, clipped, strict=True)
        ]
        h, c = (torch.stack([tensors[name][key] for name in names]) for key in ("hidden", "cell"))
        weights = (theta["input_weight"], theta["hidden_weight"], theta["gate_bias"], 1.0)  # the forget gate has +1
        hidden, cell = lstm_cell(torch.stack(rows), h, c, *weights)
        messages = linear(theta, "to_mlp", hidden)
        time = torch.sin(t.to(hidden.dtype) / (math.pi * torch.tensor(TIME_SCALES, dtype=hidden.dtype, device=hidden.device)))
        for i, (name, grad) in enumerate(zip(names, clipped, strict=True)):
            known = _known_of_tensor(params[name], len(names))
            steps[name], from_mlp = self._step(theta, params[name], grad, tensors[name], torch.cat([time, known, messages[i]]))
            tensors[name] = {**tensors[name], "hidden": hidden[i], "cell": cell[i], "from_mlp": from_mlp}
        shared |= {"from_lstms": linear(theta, "to_lstms", hidden).mean(0), **loss_state, **clip_state}
        return steps, {"tensors": tensors, "shared": shared}

    def _step(self, theta: Theta, param: Tensor, grad: Tensor, moments: State, constants: Tensor) -> tuple[Tensor, Tensor]:
        """Return (step, message to the LSTM [16]); `constants` [31] are the inputs that all weights share."""
        inverse = torch.rsqrt(moments["v"] + _EPS_V)
        groups = [grad, param, torch.log(param.abs() + 1e-8), moments["m"], moments["v"], moments["m"] * inverse, inverse]
        features = torch.cat([group.reshape(-1, param.numel()) for group in groups])
        out = network(theta, features, torch.rsqrt(_EPS_NORM + (features * features).mean(1)), constants)
        step = self.step_mult * out[0] * torch.exp(_EXP_MULT * out[1])
        return step.reshape(param.shape), out[2:].mean(1)


def _log_size(value: Tensor) -> Tensor:
    return torch.log(1e-8 + value.abs()).clamp(-5.0, 5.0)


def _norm(value: Tensor) -> Tensor:
    """Return the Euclidean norm as [1], with derivative 0 at 0."""
    return torch.sqrt((value * value).sum().reshape(1).clamp(min=1e-30))


def _known_of_tensor(param: Tensor, tensors: int) -> Tensor:
    """Return [3]: log number of tensors - 1, log norm of the weights, log number of elements."""
    counts = param.new_tensor([math.log(tensors) - 1.0, math.log(param.numel())])
    return torch.cat([counts[:1], torch.log(_norm(param) + 1e-8), counts[1:]])


def _clipped(shared: State, grads: list[Tensor]) -> tuple[list[Tensor], State]:
    """Return gradients with entries of at most ten times the running size of clipped gradients so far; and that size with these."""
    limit = _CLIP_MULT * shared["clip_size"] / shared["clip_weight"]
    # flat: a limit of shape [1] would give a gradient of shape [] an axis
    grads = [torch.clamp(grad.reshape(-1), -limit, limit).reshape(grad.shape) for grad in grads]
    squares = torch.stack([(grad * grad).mean().reshape(1) for grad in grads])
    size = torch.sqrt(1e-8 + squares.mean(0))
    new = {"clip_size": size, "clip_weight": torch.ones_like(size)}
    return grads, {name: _CLIP_DECAY * shared[name] + (1.0 - _CLIP_DECAY) * value for name, value in new.items()}


def _loss_features(shared: State, loss: Tensor) -> tuple[Tensor, State]:
    """Return ([2], state): this loss, and a loss of 0, in units of the running standard deviation around the running mean, in [-5, 5]."""
    rest, loss = 1.0 - _LOSS_DECAY, loss.reshape(1)
    mean = _LOSS_DECAY * shared["loss_mean"] + rest * loss
    variance = _LOSS_DECAY * shared["loss_variance"] + rest * (mean - loss).square()
    weight = _LOSS_DECAY * shared["loss_weight"] + rest
    both = torch.cat([loss, torch.zeros_like(loss)])
    features = (both - mean / weight) * torch.rsqrt(variance / weight + 1e-8)
    return features.clamp(-5.0, 5.0), {"loss_mean": mean, "loss_variance": variance, "loss_weight": weight}


def _tensor_features(param: Tensor, grad: Tensor, moments: State, losses: Tensor) -> Tensor:
    """Return the last 18 of `TENSOR_FEATURES`; means and variances are over weights and decays."""
    flat = [moments["m"].reshape(-1), moments["v"].reshape(-1), param.reshape(-1)]
    means = [value.mean().reshape(1) for value in flat]
    variances = [_log_size((value - mean).square().mean().reshape(1)) for value, mean in zip(flat, means, strict=True)]
    axes = [1.0] * (4 - min(param.dim(), 4))
    known = param.new_tensor([1.0 if param.shape in ((), (1,)) else -1.0, *(math.log(size) - 1.0 for size in (*param.shape[:4], *axes))])
    momentum, second, weight = ((_log_size(mean), torch.sign(mean)) for mean in means)
    return torch.cat(
        [_log_size(_norm(grad)), known[:1], *momentum, *second, *weight, _log_size(_norm(param)), known[1:], losses, *variances]
    )
