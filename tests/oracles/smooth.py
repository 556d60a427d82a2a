"""A smooth non-linear recurrence with three meta-parameters, on which every unbiased estimator must agree with automatic differentiation.

s_0 = (0.4 tanh b, -0.2), s' = tanh(M s + a sin(0.7 (t + 1))), loss |s' - (0.3, -0.5)|^2 + 0.1 sin(a_0 b) after each step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt.learners.learner import StepRecord

HORIZON = 12


@dataclass(frozen=True)
class Smooth:
    """Its task is `tests.oracles.influence_balancing.Nothing`. The initial state depends on theta."""

    def init_theta(self, seed: int = 0):
        return {"a": torch.tensor([0.8, -0.6], dtype=torch.float64), "b": torch.tensor(0.5, dtype=torch.float64)}

    def init(self, theta, task, key):
        s = torch.stack([0.4 * torch.tanh(theta["b"]), torch.full_like(theta["b"], -0.2)])
        return {"s": s, "t": torch.zeros((), dtype=torch.int64)}

    def advance(self, theta, task, carry, batch):
        mixing = theta["a"].new_tensor([[0.9, 0.5], [-0.4, 0.8]])
        s = torch.tanh(mixing @ carry["s"] + theta["a"] * torch.sin(0.7 * (carry["t"] + 1)))
        loss = ((s - s.new_tensor([0.3, -0.5])) ** 2).sum() + 0.1 * torch.sin(theta["a"][0] * theta["b"])
        return {"s": s, "t": carry["t"] + 1}, StepRecord(loss)


def losses(theta, horizon: int = HORIZON, window: int | None = None) -> Tensor:
    """Return the losses [T] of one episode; the state is cut off from the past at every multiple of `window`."""
    carry, found = Smooth().init(theta, None, None), []
    for t in range(horizon):
        if window is not None and t > 0 and t % window == 0:
            carry = {name: value.detach() for name, value in carry.items()}
        carry, record = Smooth().advance(theta, None, carry, {})
        found.append(record.loss)
    return torch.stack(found)


def exact(objective: str = "mean", window: int | None = None, horizon: int = HORIZON) -> Tensor:
    """Return the derivative [3] of an episode's mean or last loss by automatic differentiation."""
    theta = {name: value.requires_grad_() for name, value in Smooth().init_theta().items()}
    found = losses(theta, horizon, window)
    (found.mean() if objective == "mean" else found[-1]).backward()
    return torch.cat([value.grad.reshape(-1) for value in theta.values()])
