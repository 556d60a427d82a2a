"""A small rule that sees all tensors, reads the loss and the length of the run, and has state of both kinds."""

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from metaopt.learners.update_rules import ModelState, Theta

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Toy:
    """Momentum, over the largest RMS of a momentum in the model; smaller where the loss is below its mean, and later in the run.

    Attributes:
        decay: of the momentum, and of the mean of the losses, [0, 1).
        read_loss, read_horizon: what it reads besides gradients.
    """

    decay: Annotated[float, Ge(0), Lt(1)] = 0.9
    read_loss: bool = True
    read_horizon: bool = True
    name: str = field(init=False, default="toy")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 0.1}, hash=False)

    @property
    def needs_loss(self) -> bool:
        return self.read_loss

    @property
    def needs_horizon(self) -> bool:
        return self.read_horizon

    def init_theta(self, seed: int) -> Theta:
        return {"log_gain": torch.zeros(()), "fall": torch.tensor(0.5)}

    def init_state(self, theta: Theta, params: Params) -> ModelState:
        one = next(iter(params.values()))
        tensors = {name: {"m": torch.zeros_like(param)} for name, param in params.items()}
        return {"tensors": tensors, "shared": {"mean": one.new_zeros(()), "last": one.new_zeros(())} if self.read_loss else {}}

    def update(
        self, theta: Theta, params: Params, grads: Params, state: ModelState, t: Tensor, loss: Tensor | None, horizon: Tensor | None
    ) -> tuple[Params, ModelState]:
        momenta = {name: self.decay * state["tensors"][name]["m"] + (1 - self.decay) * grad for name, grad in grads.items()}
        size = torch.stack([torch.sqrt((m * m).mean() + 1e-12) for m in momenta.values()]).amax()
        factor, shared = torch.exp(theta["log_gain"]) / size, {}
        if self.read_loss:
            assert loss is not None
            shared = {"mean": self.decay * state["shared"]["mean"] + (1 - self.decay) * loss, "last": loss}
            factor = factor * (0.5 + torch.sigmoid(loss - shared["mean"]))
        if self.read_horizon:
            assert horizon is not None
            factor = factor * (1 - theta["fall"] * t / horizon)
        return {name: factor * m for name, m in momenta.items()}, {
            "tensors": {name: {"m": m} for name, m in momenta.items()},
            "shared": shared,
        }
