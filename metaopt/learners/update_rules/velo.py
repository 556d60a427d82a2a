"""VeLO: an LSTM for each tensor mixes a bank of tiny networks into one that makes the tensor's step, weight by weight.

Legend: K tensors, H units of the LSTM, J networks of the bank.

Source: Metz et al., 2022, "VeLO: training versatile learned optimizers by scaling up", section 3 and appendix B, and its code release
("HyperV2" with the state of the LSTM carried on and loss features over the whole run, as its released weights were trained); muVeLO is
Therien et al., 2024, "muLO". Differs: tensors without elements take no part; an untrained rule can begin as Adam (`start`).
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from metaopt.learners.update_rules.model_rule import ModelState, Params
from metaopt.learners.update_rules.rule import State, Theta
from metaopt.learners.update_rules.tensor_lstm import init_linear, init_tensor_lstm, initial_lstm_state, linear, tensor_lstm
from metaopt.learners.update_rules.velo_features import (
    FEATURES,
    RUN_FEATURES,
    TENSOR_FEATURES,
    accumulate,
    clipped,
    init_accumulators,
    init_loss_buffer,
    run_features,
    tensor_features,
)
from metaopt.learners.update_rules.velo_mlp import init_bank, learned_step, mixed_networks, with_prefix, without_prefix

__all__ = ["FEATURES", "VeLO"]


@dataclass(frozen=True)
class VeLO:
    """step = step_mult * rate * direction * exp(1e-3 * magnitude) * RMS of the tensor; rate and network are the tensor's own at each step.

    Theta: `lstm_*` (the LSTM and the layers before it), `mixture_*` and `rate_*` (its readouts), `bank_*` (the networks). 2,304,513 numbers
    at full size; the release counts 15,872 more, of a layer that is never heard. State: 16 bytes a weight, rows and columns, 2 H floats a
    tensor. For muVeLO set parameter_scale=False, mixture_factor=1.0, lstm_hidden=16, mixture=8.

    Attributes:
        start: "adam" begins with equal coefficients, rate 1 and a bank whose mean passes on momentum over the root second moment: steps of
            RMS `step_mult` in Adam's direction, without bias correction, relative to the tensor's RMS; "random" with random weights.
        lstm_hidden: units of the LSTM.
        mixture: networks in the bank.
        mlp_hidden: units in both hidden layers of each network.
        mixture_factor: of the mean over the bank, (0, inf).
        parameter_scale: whether steps are relative to the RMS of the tensor; muVeLO's are not, which would depend on width.
        step_mult: size of a unit direction at rate 1, (0, inf).
    """

    start: Literal["adam", "random"] = "adam"
    lstm_hidden: Annotated[int, Ge(1)] = 512
    mixture: Annotated[int, Ge(1)] = 256
    mlp_hidden: Annotated[int, Ge(2)] = 4
    mixture_factor: Annotated[float, Gt(0)] = 100.0
    parameter_scale: bool = True
    step_mult: Annotated[float, Gt(0)] = 1e-3
    name: str = field(init=False, default="velo")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)
    needs_loss: bool = field(init=False, default=True)
    needs_horizon: bool = field(init=False, default=True)

    def init_theta(self, seed: int) -> Theta:
        """Return the meta-parameters, see `start`."""
        mixture = init_linear("mixture", self.lstm_hidden, self.mixture, seed)
        rate = init_linear("rate", self.lstm_hidden, 1, seed)
        if self.start == "adam":
            mixture = {
                "mixture_weight": mixture["mixture_weight"] * 0.0,
                "mixture_bias": torch.full((self.mixture,), 1.0 / self.mixture_factor),
            }
            rate = {"rate_weight": rate["rate_weight"] * 0.0, "rate_bias": torch.ones(1)}
        else:  # so that a mixture is as large as one of its networks
            mixture["mixture_weight"] *= math.sqrt(self.mixture) / self.mixture_factor
        lstm = init_tensor_lstm(RUN_FEATURES + TENSOR_FEATURES, self.lstm_hidden, seed)
        bank = init_bank(self.start, self.mlp_hidden, self.mixture, seed)
        return {**with_prefix("lstm_", lstm), **mixture, **rate, **with_prefix("bank_", bank)}

    def init_state(self, theta: Theta, params: Params) -> ModelState:
        """Return zero accumulators, the LSTM's initial state for each tensor, and an empty loss buffer."""
        lstm = without_prefix("lstm_", theta)
        like = next(iter(params.values()), lstm["initial_cell"])
        tensors = {name: {**init_accumulators(param), **initial_lstm_state(lstm, param)} for name, param in params.items()}
        return {"tensors": tensors, "shared": init_loss_buffer(like)}

    def update(
        self, theta: Theta, params: Params, grads: Params, state: ModelState, t: Tensor, loss: Tensor | None, horizon: Tensor | None
    ) -> tuple[Params, ModelState]:
        """Return (steps by name, state)."""
        run, shared = run_features(state["shared"], t, loss, horizon)
        tensors = dict(state["tensors"])
        steps = {name: torch.zeros_like(param) for name, param in params.items() if not param.numel()}
        names = [name for name in params if name not in steps]
        if not names:
            return steps, {"tensors": tensors, "shared": shared}
        hidden, cell = self._lstm(theta, run, params, tensors, names)
        networks = mixed_networks(without_prefix("bank_", theta), linear(theta, "mixture", hidden), self.mixture_factor)
        rates = linear(theta, "rate", hidden)
        for i, name in enumerate(names):
            features, accumulators = accumulate(params[name], clipped(grads[name]), tensors[name])
            tensors[name] = {**accumulators, "hidden": hidden[i], "cell": cell[i]}
            step = learned_step(networks[i], params[name], features, self.step_mult, self.parameter_scale)
            steps[name] = (rates[i] * step.reshape(-1)).reshape(step.shape)
        return steps, {"tensors": tensors, "shared": shared}

    def _lstm(self, theta: Theta, run: Tensor, params: Params, tensors: dict[str, State], names: list[str]) -> tuple[Tensor, Tensor]:
        """Return (hidden, cell), [K, H] each, for the tensors in the order of `names`."""
        inputs = torch.stack([torch.cat([run, tensor_features(params[name], tensors[name])]) for name in names])
        before = [torch.stack([tensors[name][key] for name in names]) for key in ("hidden", "cell")]
        return tensor_lstm(without_prefix("lstm_", theta), inputs, *before)
