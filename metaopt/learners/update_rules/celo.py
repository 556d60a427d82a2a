"""Celo: one tiny network makes the steps of all weights, and an LSTM that sees only progress and loss schedules their size.

Source: Moudgil et al., 2025, "Celo: training versatile learned optimizers on a compute diet", and its code release. Differs: see `Celo`.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from metaopt.learners.update_rules.classic import Adam
from metaopt.learners.update_rules.model_rule import ModelState, Params
from metaopt.learners.update_rules.rule import State, Theta
from metaopt.learners.update_rules.tensor_lstm import init_linear, init_tensor_lstm, initial_lstm_state, linear, tensor_lstm
from metaopt.learners.update_rules.velo_features import (
    FEATURES,
    RUN_FEATURES,
    accumulate,
    clipped,
    init_accumulators,
    init_loss_buffer,
    run_features,
)
from metaopt.learners.update_rules.velo_mlp import init_network, learned_step, with_prefix, without_prefix

__all__ = ["FEATURES", "Celo"]

_LOG_TEN = math.log(10.0)
_ADAM = Adam()


@dataclass(frozen=True)
class Celo:
    """step = multiplier * step_mult * direction * exp(1e-3 * magnitude) * RMS of the tensor; one multiplier 0.1 exp(h) for all tensors.

    Theta: `rule_*`, the network, 159 numbers; `schedule_*`, the scheduler, 35,649. Meta-training has two phases: the network under no
    schedule (`train: [rule_*]`), then the scheduler over the frozen network (`train: [schedule_*]`). A scheduler that has not been
    trained is no schedule: its head has zero weights and the bias log 10, so that the multiplier is 1 to the bit in float32. (The release
    takes it out in the first phase, and begins the second with a random head: multipliers around 0.1.)

    State: 16 bytes a weight, rows and columns (Adam: 8 bytes); the loss buffer and 2 `schedule_hidden` floats a model.

    Attributes:
        start: "adam" begins with a network that passes on momentum over the root second moment: steps of RMS `step_mult` in Adam's
            direction, without bias correction, relative to the tensor's RMS; "random" with random weights, of the scheduler's head too.
        direction: "learned", or "adam" for Celo-Adam: step_mult * multiplier times Adam's own step (0.9, 0.999, epsilon 1e-8, bias
            corrected, in absolute units), only the scheduler is learned. The release adds 1e-10 within Adam's root.
        schedule_hidden: units of the scheduler's LSTM.
        mlp_hidden: units in both hidden layers of the network.
        parameter_scale: whether learned steps are relative to the RMS of the tensor.
        step_mult: size of a unit direction at multiplier 1, (0, inf).
    """

    start: Literal["adam", "random"] = "adam"
    direction: Literal["learned", "adam"] = "learned"
    schedule_hidden: Annotated[int, Ge(1)] = 64
    mlp_hidden: Annotated[int, Ge(2)] = 4
    parameter_scale: bool = True
    step_mult: Annotated[float, Gt(0)] = 1e-3
    name: str = field(init=False, default="celo")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)
    needs_loss: bool = field(init=False, default=True)
    needs_horizon: bool = field(init=False, default=True)

    def init_theta(self, seed: int) -> Theta:
        """Return the meta-parameters, see `start`."""
        head = init_linear("head", self.schedule_hidden, 1, seed)
        if self.start == "adam":
            head = {"head_weight": torch.zeros_like(head["head_weight"]), "head_bias": torch.full((1,), _LOG_TEN)}
        schedule = with_prefix("schedule_", {**init_tensor_lstm(RUN_FEATURES, self.schedule_hidden, seed), **head})
        if self.direction == "adam":
            return schedule
        return {**with_prefix("rule_", init_network(self.start, self.mlp_hidden, seed)), **schedule}

    def init_state(self, theta: Theta, params: Params) -> ModelState:
        """Return zero accumulators, an empty loss buffer and the scheduler's initial state."""
        schedule = without_prefix("schedule_", theta)
        like = next(iter(params.values()), schedule["initial_cell"])
        fresh = init_accumulators if self.direction == "learned" else _ADAM.init_state
        tensors = {name: fresh(param) for name, param in params.items()}
        return {"tensors": tensors, "shared": {**init_loss_buffer(like), **initial_lstm_state(schedule, like)}}

    def update(
        self, theta: Theta, params: Params, grads: Params, state: ModelState, t: Tensor, loss: Tensor | None, horizon: Tensor | None
    ) -> tuple[Params, ModelState]:
        """Return (steps by name, state)."""
        multiplier, shared = self.schedule(theta, state["shared"], t, loss, horizon)
        network = without_prefix("rule_", theta)
        steps, tensors = {}, dict(state["tensors"])
        for name, param in params.items():
            if not param.numel():
                steps[name] = torch.zeros_like(param)
                continue
            grad = clipped(grads[name])
            if self.direction == "adam":
                direction, tensors[name] = _ADAM.update({}, param, grad, tensors[name], t)
                step = self.step_mult * direction
            else:
                features, tensors[name] = accumulate(param, grad, tensors[name])
                step = learned_step(network, param, features, self.step_mult, self.parameter_scale)
            steps[name] = (multiplier * step.reshape(-1)).reshape(param.shape)
        return steps, {"tensors": tensors, "shared": shared}

    def schedule(self, theta: Theta, shared: State, t: Tensor, loss: Tensor | None, horizon: Tensor | None) -> tuple[Tensor, State]:
        """Return (multiplier [1], the state of loss buffer and scheduler) for one loss.

        Every tensor would see the same inputs from the same initial state, so that one application stands for all.
        """
        scheduler = without_prefix("schedule_", theta)
        inputs, buffer = run_features(shared, t, loss, horizon)
        hidden, cell = tensor_lstm(scheduler, inputs.unsqueeze(0), shared["hidden"].unsqueeze(0), shared["cell"].unsqueeze(0))
        h = linear(scheduler, "head", hidden).squeeze(0)
        return torch.exp(h - _LOG_TEN), {**buffer, "hidden": hidden.squeeze(0), "cell": cell.squeeze(0)}
