"""Generalised advantages of whole episodes."""

import torch
from torch import Tensor

from metaopt.outer.ppo.episodes import Episodes

__all__ = ["advantages", "normalised"]


def advantages(episodes: Episodes, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Return the advantage of every decision, and the return that the critic should have expected, each [T, E] float32.

    delta_t = r_t + gamma V_{t+1} - V_t, with the bootstrap for V after the last decision; A_t = delta_t + gamma lam A_{t+1}; the target is
    A_t + V_t. Computed in float64; 0 where no decision was taken. Not differentiable.

    Args:
        episodes: whole episodes.
        gamma: discount, [0, 1].
        lam: 0 trusts the critic, 1 the rewards, [0, 1].

    Source: Schulman et al., 2016, "High-dimensional continuous control using generalized advantage estimation" (1506.02438), equation 16.
    """
    valid, value, reward = episodes.valid, episodes.value.double(), episodes.reward.double()
    following, advantage = episodes.bootstrap.double(), torch.zeros_like(episodes.bootstrap, dtype=torch.float64)
    rows = []
    for valid_t, value_t, reward_t in reversed(list(zip(valid, value, reward, strict=True))):
        delta = reward_t + gamma * following - value_t
        advantage = torch.where(valid_t, delta + gamma * lam * advantage, 0.0)
        following = torch.where(valid_t, value_t, following)
        rows.append(advantage)
    result = torch.stack(rows[::-1])
    target = torch.where(valid, result + value, 0.0)
    return result.float(), target.float()


def normalised(advantage: Tensor) -> Tensor:
    """Return advantages [N] with mean 0 and standard deviation 1; those that are all equal become 0."""
    centred = advantage.double() - advantage.double().mean()
    return (centred / (centred.square().mean().sqrt() + 1e-8)).to(advantage.dtype)
