"""The critic: expects the return from what the policy sees and from what only training knows.

It has a trunk of its own (recurrent like the policy's) and is never shipped, so that its inputs may carry units.
It learns normalised returns; the statistics of returns and inputs are buffers inside.

Legend: [...] leading dims, T decisions, E episodes, N packed rows, I policy inputs, V critic-only inputs, H hidden units.
"""

import torch
from torch import Tensor, nn

from metaopt import seeds
from metaopt.learners.policies.lstm import LSTMState
from metaopt.learners.policies.network import Trunk, initial_state, linear, packed_features
from metaopt.learners.policies.normaliser import Normaliser

__all__ = ["Critic"]


class Critic(nn.Module):
    """From observations to expected returns.

    Args:
        inputs: I + V.
        hidden: H.
        key: the initial weights are a function of it; the fresh critic expects the mean return everywhere.
    """

    def __init__(self, inputs: int, hidden: int, key: Tensor) -> None:
        super().__init__()
        self.normaliser = Normaliser(inputs)
        self.targets = Normaliser(1, clip=float("inf"))
        self.trunk = Trunk(inputs, hidden, seeds.fold_in(key, 0))
        self.head = linear(hidden, 1, 0.0, seeds.fold_in(key, 1))

    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> LSTMState:
        """Return the state before the first decision, each [*batch_shape, H], zeros."""
        return initial_state(self.trunk.hidden, batch_shape, self.head.bias)

    def inputs(self, pi: Tensor, v: Tensor) -> Tensor:
        """Return normalised inputs, [..., I + V]."""
        normal: Tensor = self.normaliser(torch.cat([pi, v], dim=-1))
        return normal

    def value(self, features: Tensor) -> Tensor:
        """Return expected returns [...] in units of reward, from features [..., H] of the trunk."""
        value: Tensor = self.targets.inverse(self.head(features))
        return value.squeeze(-1)

    def step(self, pi: Tensor, v: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Return expected returns [...] at one decision, in units of reward, and the state after it."""
        features, state = self.trunk.step(self.inputs(pi, v), state)
        return self.value(features), state

    def forward(self, pi: Tensor, v: Tensor) -> Tensor:
        """Return expected returns [T, E], in units of reward, of whole episodes: pi [T, E, I], v [T, E, V]."""
        steps, episodes = pi.shape[:2]
        state = self.initial_state((episodes,))
        ((features, _),) = packed_features([self.trunk], [self.inputs(pi, v).flatten(0, 1)], [state], [episodes] * steps)
        return self.value(features).reshape(steps, episodes)
