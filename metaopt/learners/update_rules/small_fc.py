"""The Adafactor MLP rule: 28 features a weight and eleven of time through a tiny network.

Source: Metz et al., 2022, "Practical tradeoffs between memory, compute, and performance in learned optimizers"; hidden sizes (32, 32) and
`step_mult` 0.01 are those of Therien et al., 2024, "muLO". 190 weights at (4, 4), 2,402 at (32, 32), and seven decay offsets.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, MinLen
from torch import Tensor

from metaopt.learners.update_rules.factored_features import FEATURES, accumulate, decay_offsets, init_accumulators
from metaopt.learners.update_rules.features import network, random_network, signal_path, time_features
from metaopt.learners.update_rules.rule import State, Theta

__all__ = ["FEATURES", "SmallFC"]

_ADAM_FEATURE = FEATURES.index("normalised momentum 0.9")
_EXP_MULT = 1e-3


@dataclass(frozen=True)
class SmallFC:
    """step = step_mult * direction * exp(1e-3 * magnitude), features normalised to unit RMS over each tensor.

    Attributes:
        start: "adam" begins as Adam without bias correction (0.9, 0.999, epsilon 1e-6 inside the root) divided by its own RMS, "random"
            with random weights.
        hidden: widths of the hidden layers.
        step_mult: size of a unit direction, (0, inf).
        learn_decays: whether the decays of the accumulators are meta-parameters.
        norm_eps: beside the mean square of a feature in its normalisation, (0, inf). Under maximal update parametrisation gradients shrink
            as networks widen; steps stay the same only with an epsilon below their squares, about 1e-12 (1e-5 as published).
    """

    start: Literal["adam", "random"] = "adam"
    hidden: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (4, 4)
    step_mult: Annotated[float, Gt(0)] = 1e-3
    learn_decays: bool = True
    norm_eps: Annotated[float, Gt(0)] = 1e-5
    name: str = field(init=False, default="small_fc")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)

    def init_theta(self, seed: int) -> Theta:
        """Return the network's weights, see `start`, and zero decay offsets."""
        theta = random_network((len(FEATURES), *self.hidden, 2), seed)
        if self.start == "adam":
            theta = signal_path(theta, _ADAM_FEATURE)
        return {**theta, **(decay_offsets() if self.learn_decays else {})}

    def init_state(self, param: Tensor) -> State:
        """Return zero accumulators."""
        return init_accumulators(param)

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (step, state)."""
        features, _, _, state = accumulate(theta, param, grad, state)
        scale = torch.rsqrt(self.norm_eps + (features * features).mean(1))
        direction, magnitude = network(theta, features, scale, time_features(t, param.dtype))
        step = self.step_mult * direction * torch.exp(_EXP_MULT * magnitude)
        return step.reshape(param.shape), state
