"""Deterministic quadratics as tasks."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Quadratic:
    """1/2 (x - 1)^T H (x - 1) with a condition number, its axes turned or not, as much of a task as a learner needs."""

    condition: float = 100.0
    turned: bool = True
    scale: float = 1.0
    size: int = 12
    dtype: torch.dtype = torch.float64
    step_scales: dict[str, float] = field(default_factory=dict)
    embeddings: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        eigenvalues = self.scale * torch.logspace(0, -torch.log10(torch.tensor(self.condition)), self.size, dtype=torch.float64)
        axes = torch.linalg.qr(draw(self.size, self.size, seed=1))[0] if self.turned else torch.eye(self.size, dtype=torch.float64)
        self.horizon = torch.tensor(100.0, dtype=self.dtype)
        self.eigenvalues, self.axes, self.start = eigenvalues, axes, draw(self.size, seed=2).to(self.dtype)
        self.hessian = (axes * eigenvalues @ axes.T).to(self.dtype)

    def init(self, key: Tensor) -> dict[str, Tensor]:
        return {"x": self.start[: self.size // 2], "y": self.start[self.size // 2 :]}

    def loss(self, params: dict[str, Tensor], batch: object = None) -> Tensor:
        gap = torch.cat([params["x"], params["y"]]) - 1
        return 0.5 * gap @ self.hessian @ gap

    def gradients(self, params, batch, state):
        grads, loss = torch.func.grad_and_value(self.loss)(params)
        return grads, loss, state

    def gradient_state(self, params):
        return {}

    def best_constant(self, steps: int) -> float:
        """Return the lowest loss after `steps` of gradient descent over a grid of constant step sizes up to the edge of stability."""
        gap = self.axes.T @ (torch.cat(list(self.init(torch.tensor(0)).values())).double() - 1)
        rates = torch.linspace(0.0, 2.0, 2001, dtype=torch.float64)[:, None] / self.eigenvalues.max()
        return float((0.5 * self.eigenvalues * gap**2 * (1 - rates * self.eigenvalues) ** (2 * steps)).sum(1).min())


def run(learner, task, steps, theta=None):
    """Return the losses before each step and after the last one, and all carries."""
    carry = learner.init(theta or {}, task, torch.tensor(0))
    carries, losses = [carry], []
    for _ in range(steps):
        carry, record = learner.advance(theta or {}, task, carry, {})
        carries.append(carry)
        losses.append(float(record.loss))
    return [*losses, float(task.loss(carry["params"]))], carries
