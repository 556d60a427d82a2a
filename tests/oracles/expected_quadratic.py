"""The noisy quadratic in expectation, as a task that any gradient learner runs on without noise.

Under a linear update the weights are linear in their start and in the noise of each step, which are independent. Their coefficients are the
parameters here, C [D, 1 + T]: column 0 belongs to the start, column 1 + t to the targets of step t. Then E[w_i^2] is the sum of C_i^2, and
the gradient of step t is h (C - s e_t): SGD on the coefficients follows the recursion of `noisy_quadratic.moments`.
"""

from dataclasses import dataclass

import torch

from metaopt.tasks.oracles.noisy_quadratic import NoisyQuadratic
from metaopt.tasks.task import Task


@dataclass(frozen=True)
class Expected:
    """The program of T steps; the loss is the expected excess loss before a step. Batches say which step it is."""

    steps: int
    cap: float = 1e12

    def shared(self):
        return {}

    def init(self, numbers, key):
        start = numbers["start"].sqrt()[:, None]
        return {"c": torch.cat([start, torch.zeros(len(start), self.steps, dtype=start.dtype)], 1)}

    def batch(self, numbers, shared, key, step):
        return {"column": (torch.arange(self.steps + 1) == step + 1).to(numbers["start"].dtype)}

    heldout = batch

    def loss(self, numbers, params, batch):
        return 0.5 * (numbers["curvature"] * params["c"].square().sum(-1)).sum()

    def gradients(self, numbers, params, batch, state):
        target = numbers["noise"].sqrt()[:, None] * batch["column"]
        return {"c": numbers["curvature"][:, None] * (params["c"] - target)}, self.loss(numbers, params, batch), state

    def normalise(self, numbers, raw):
        return raw


@dataclass(frozen=True)
class Runs:
    """Endless runs of T steps on one problem."""

    problem: NoisyQuadratic
    steps: int

    def task(self, particle, episode):
        exact = {name: torch.from_numpy(getattr(self.problem, name)) for name in ("curvature", "noise", "start")}
        return Task(Expected(self.steps), {**exact, "horizon": torch.tensor(float(self.steps), dtype=torch.float64)}, {})

    def run_seed(self, particle, episode):
        return particle

    def stagger(self, particle):
        return 0.0
