"""STAR: a nominal Adam step that is always taken, and a learned step on top of it, preconditioned, with learned weight decay.

Source: Harrison, Metz, Sohl-Dickstein, 2022, "A Closer Look at Learned Optimization: Stability, Robustness, and Inductive Biases", with
what the text leaves open taken from its code release (AggMo-Adam as the nominal gradient, step sizes 1e-3). Differs: the inner weight
decay begins at AdamW's own product of rate and decay, 1e-5 a step, where the release leaves it off.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, MinLen
from torch import Tensor

from metaopt.learners.update_rules.factored_features import FEATURES, accumulate, decay_offsets, init_accumulators
from metaopt.learners.update_rules.features import network, random_network, silent_output, time_features
from metaopt.learners.update_rules.rule import State, Theta

__all__ = ["FEATURES", "Star"]

_EPS = 1e-5
_EXP_MULT = 1e-3


@dataclass(frozen=True)
class Star:
    """step = step_mult * direction * exp(s magnitude) / sqrt(v) + nominal_step * exp(s n) * adam + decay * exp(s r) * p, s = 1e-3.

    `adam` is the mean of Adam's direction over three momenta (0.9, 0.99, 0.999), second moment 0.999, epsilon 1e-6 inside the root, no
    bias correction. Direction, magnitude, n and r are the four outputs of a network on the features of `small_fc`.

    Attributes:
        start: "adam" begins with outputs of zero, hence as the nominal step with weight decay; "random" with random weights.
        hidden: widths of the hidden layers.
        step_mult: size of the learned step, (0, inf).
        nominal_step: size of the nominal step, [0, inf).
        decay: fraction of a weight that a step takes away, [0, 1).
        learn_decays: whether the decays of the accumulators are meta-parameters.
    """

    start: Literal["adam", "random"] = "adam"
    hidden: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (4, 4)
    step_mult: Annotated[float, Gt(0)] = 1e-3
    nominal_step: Annotated[float, Ge(0)] = 1e-3
    decay: Annotated[float, Ge(0)] = 1e-5
    learn_decays: bool = True
    name: str = field(init=False, default="star")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)

    def init_theta(self, seed: int) -> Theta:
        """Return the network's weights, see `start`, and zero decay offsets."""
        theta = random_network((len(FEATURES), *self.hidden, 4), seed)
        if self.start == "adam":
            theta = silent_output(theta)
        return {**theta, **(decay_offsets() if self.learn_decays else {})}

    def init_state(self, param: Tensor) -> State:
        """Return zero accumulators."""
        return init_accumulators(param)

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (step, state)."""
        features, adam, inverse, state = accumulate(theta, param, grad, state)
        scale = torch.rsqrt(_EPS + (features * features).mean(1))
        outputs = network(theta, features, scale, time_features(t, param.dtype))
        direction = outputs[0].reshape(param.shape)
        magnitude, nominal, decay = torch.exp(_EXP_MULT * outputs[1:]).reshape(3, *param.shape).unbind(0)
        learned = self.step_mult * direction * magnitude * inverse
        return learned + self.nominal_step * nominal * adam.mean(0) + self.decay * decay * param, state
