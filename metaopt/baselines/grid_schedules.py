"""The seven schedules of the grid that hyperparameter policies are compared with, and a learner that takes its schedule from theta.

A schedule is a number in theta, like a rate, so that runs under different schedules are rows of one inner run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt.learners import Carry, GradientLearner, StepRecord
from metaopt.learners.update_rules import Theta, get_rule
from metaopt.tasks.task import Batch, Task

__all__ = ["GRID_SCHEDULES", "ScheduleByNumber", "grid_factors"]


def _multi_step(p: Tensor) -> Tensor:
    return torch.where(p < 0.5, 1.0, torch.where(p < 0.75, 0.1, 0.01))


def _cosine(p: Tensor) -> Tensor:
    return 0.5 * (1.0 + torch.cos(math.pi * p))


# Factors of the rate by the fraction p in [0, 1] of the horizon that is done. Source of the grid: Almeida et al., 2021, arXiv 2106.00958;
# of the places of multi-step's tenths: He et al., 2016, "Deep residual learning". The exponential's end at a hundredth is ours.
_FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": torch.ones_like,
    "multi_step": _multi_step,
    "linear": lambda p: 1.0 - p,
    "quadratic": lambda p: (1.0 - p) ** 2,
    "exponential": lambda p: torch.pow(0.01, p),
    "cosine": _cosine,
    "cosine_to_tenth": lambda p: 0.1 + 0.9 * _cosine(p),
}
GRID_SCHEDULES = tuple(_FORMULAS)


def grid_factors(t: Tensor, horizon: Tensor) -> Tensor:
    """Return the rate's factors [7] at update t (0-d, the first one is 0) under each of `GRID_SCHEDULES`; past the horizon, those there."""
    p = (t.to(horizon.dtype) / horizon).clamp(max=1.0)
    return torch.stack([formula(p) for formula in _FORMULAS.values()])


@dataclass(frozen=True)
class ScheduleByNumber:
    """An update rule's learner whose theta holds `lr` and `schedule`, a place in `GRID_SCHEDULES` (any float or integer dtype).

    Attributes:
        rule: registry name of a classic rule, at its own defaults.
    """

    rule: str = "adamw"

    @property
    def _constant(self) -> GradientLearner:
        return GradientLearner(get_rule(self.rule))

    def init_theta(self, seed: int) -> Theta:
        """Return the rule's default rate, and the constant schedule."""
        return {"lr": torch.tensor(get_rule(self.rule).hyperparameters["lr"]), "schedule": torch.tensor(0)}

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return the carry of the rule's own learner."""
        return self._constant.init({}, task, key)

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one update at the scheduled rate, and the loss before it."""
        factors = grid_factors(carry["t"], task.horizon)
        chosen = torch.arange(len(factors), device=factors.device) == theta["schedule"]
        return self._constant.advance({"lr": theta["lr"] * torch.where(chosen, factors, 0.0).sum()}, task, carry, batch)
