"""Policy and critic as stable-baselines3 wants to see them: one module with `predict`.

Legend: n environments, A heads, H hidden units.
"""

from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from metaopt import seeds
from metaopt.config.policy import PPOSettings
from metaopt.errors import ConfigError
from metaopt.learners.policies.heads import greedy, sample
from metaopt.learners.policies.network import NetworkShape, PolicyNetwork
from metaopt.outer.ppo.critic import Critic
from metaopt.outer.ppo.update import make_optimizer

__all__ = ["RecurrentPolicy"]


class RecurrentPolicy(BasePolicy):
    """A `PolicyNetwork`, its `Critic` and their optimizer.

    Args:
        observation_space: a Box, which both see; or a Dict of the Boxes "pi", which both see, and "v", which the critic sees too.
        action_space: Discrete or MultiDiscrete.
        lr_schedule: stable-baselines3's schedule of the rate.
        hidden: H.
        settings: of the update.
        seed: weights and sampled actions are a function of it.

    Raises:
        ConfigError: another kind of space.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        hidden: int,
        settings: PPOSettings,
        seed: int,
    ) -> None:
        super().__init__(observation_space, action_space)
        pi, v = _sizes(observation_space)
        self.nvec = _nvec(action_space)
        key = seeds.key("recurrent policy", seed)
        self.network = PolicyNetwork(NetworkShape(pi, hidden, self.nvec), seeds.fold_in(key, 0))
        self.critic = Critic(pi + v, hidden, seeds.fold_in(key, 1))
        self.optimizer = make_optimizer(self.network, self.critic, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = lr_schedule(1.0)
        self._key, self._draws = seeds.fold_in(key, 2), 0

    def split(self, observation: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Return what the policy sees [n, I] and what the critic sees besides [n, V], float32."""
        if isinstance(observation, dict):
            return observation["pi"].float(), observation["v"].float()
        pi = observation.float().flatten(1)
        return pi, pi.new_zeros((len(pi), 0))

    def choose(self, logits: Tensor, deterministic: bool = False) -> Tensor:
        """Return actions [n, A]: the likeliest, or a sample that is a function of the seed and the number of samples so far."""
        if deterministic:
            return greedy(logits, self.nvec)
        self._draws += 1
        return sample(logits, seeds.uniform(seeds.fold_in(self._key, self._draws), (len(logits), len(self.nvec))), self.nvec)

    def for_environment(self, action: Tensor) -> np.ndarray[Any, Any]:
        """Return actions [n, A] as the action space has them, [n] or [n, A]."""
        chosen = action.numpy()
        if isinstance(self.action_space, spaces.Discrete):
            return cast("np.ndarray[Any, Any]", chosen[:, 0] + self.action_space.start)
        return cast("np.ndarray[Any, Any]", chosen + cast(spaces.MultiDiscrete, self.action_space).start)

    @torch.no_grad()
    def predict(
        self,
        observation: np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]],
        state: tuple[np.ndarray[Any, Any], ...] | None = None,
        episode_start: np.ndarray[Any, Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray[Any, Any], tuple[np.ndarray[Any, Any], ...] | None]:
        """Return actions and the LSTM's state after them, to be handed in again; where `episode_start` is True the state begins anew."""
        tensors, several = self.obs_to_tensor(observation)
        pi, _ = self.split(tensors)
        h, c = self.network.initial_state((len(pi),)) if state is None else (torch.as_tensor(part) for part in state)
        if episode_start is not None:
            going_on = torch.as_tensor(~np.asarray(episode_start, dtype=bool)).unsqueeze(-1)
            h, c = torch.where(going_on, h, 0.0), torch.where(going_on, c, 0.0)
        logits, new = self.network.step(pi, (h, c))
        action = self.for_environment(self.choose(logits, deterministic))
        return (action if several else action[0]), tuple(part.numpy() for part in new)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Return actions at the first decision of an episode (the base class wants a form without memory)."""
        pi, _ = self.split(observation)
        logits, _ = self.network.step(pi, self.network.initial_state((len(pi),)))
        return torch.as_tensor(self.for_environment(self.choose(logits, deterministic)))


def _sizes(space: spaces.Space[Any]) -> tuple[int, int]:
    informed = isinstance(space, spaces.Dict) and set(space.spaces) == {"pi", "v"}
    parts = [cast(spaces.Dict, space).spaces[name] for name in ("pi", "v")] if informed else [space]
    if not all(isinstance(part, spaces.Box) for part in parts):
        raise ConfigError(f"observation_space must be a Box, or a Dict of two Boxes 'pi' and 'v', got {space}")
    sizes = [int(np.prod(part.shape or ())) for part in parts]
    return sizes[0], sum(sizes[1:])


def _nvec(space: spaces.Space[Any]) -> tuple[int, ...]:
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return tuple(space.nvec.tolist())
    raise ConfigError(f"action_space must be Discrete, or MultiDiscrete of one dimension, got {space}")
