"""Losses of AdamW at given budgets on the half of the held-out examples that scores.

Unlike `CurveKey` these keep the examples apart that decisions may look at, leave the task's cap away, evaluate at the budgets asked for and
nowhere else, and run several schedules at once.

Legend: E budgets, S schedules, R rates, K seeds, N = S R K runs, seeds fastest.
"""

import hashlib
import inspect
import json
import sys
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import vmap

from metaopt import tasks
from metaopt.baselines import grid_schedules
from metaopt.baselines.code_version import code_version, meaningful_source
from metaopt.baselines.grid_schedules import GRID_SCHEDULES, ScheduleByNumber
from metaopt.baselines.optimizer_code import optimizer_code
from metaopt.baselines.runs import Curves
from metaopt.errors import ConfigError
from metaopt.inner.step import BATCHES_AHEAD, fresh_carries, training_batches, training_step
from metaopt.learners import GradientLearner
from metaopt.learners.update_rules import get_rule
from metaopt.tasks import TaskSpec, halves
from metaopt.tasks.halves import SCORING, half_loss
from metaopt.tasks.number_shifts import is_shifted
from metaopt.tasks.task import Batch, Numbers, Params, Task, stack_tasks

__all__ = ["RATES", "RULE", "BudgetRuns", "compute"]

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
RULE = "adamw"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BudgetRuns:
    """Runs of AdamW under every one of some schedules and rates with some seeds; everything that determines their losses.

    Attributes:
        spec: the task; its horizon is where schedules end.
        schedules: of `GRID_SCHEDULES`.
        rates: learning rates; everything else is AdamW's default.
        seeds: inner seeds.
        budgets: inner steps after which to evaluate, rising, 0 being the initialisation; runs end at the last one.
    """

    spec: TaskSpec
    schedules: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    budgets: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.budgets or self.budgets[0] < 0 or sorted(set(self.budgets)) != list(self.budgets):
            raise ConfigError(f"budgets must rise from 0 or more, got {self.budgets}")
        if unknown := [name for name in self.schedules if name not in GRID_SCHEDULES]:
            raise ConfigError(f"schedule {unknown[0]!r} is none of {', '.join(GRID_SCHEDULES)}")

    def to_json(self) -> str:
        """Return the canonical JSON text of the key, code versions included."""
        content: dict[str, Any] = {
            "half": SCORING,
            "task": asdict(self.spec),
            "optimizer": {"rule": RULE, "options": get_rule(RULE).hyperparameters},
            "schedules": self.schedules,
            "rates": self.rates,
            "seeds": self.seeds,
            "budgets": self.budgets,
            "code": [
                code_version(self.spec.family, is_shifted(self.spec.values)),
                optimizer_code(GradientLearner(get_rule(RULE))),
                _own_code(),
            ],
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    def kept(self, curves: Curves) -> Curves:
        """Return what the store gives back for these curves."""
        return curves.stored()

    @property
    def work(self) -> int:
        """Inner steps of all runs together."""
        return self.budgets[-1] * len(self.schedules) * len(self.rates) * len(self.seeds)

    def shaped(self, curves: Curves) -> Array:
        """Return the losses [E, S, R, K] of curves."""
        return curves.heldout.reshape(len(self.budgets), len(self.schedules), len(self.rates), len(self.seeds))


def compute(runs: BudgetRuns) -> Curves:
    """Return the losses [E, N] of runs: normalised, without cap, not finite where they blew up; `train` is empty.

    A pure function of `runs` for one device type and thread count; all runs are one vectorised program.
    """
    count = len(runs.seeds)
    rates = torch.tensor(runs.rates).repeat_interleave(count).repeat(len(runs.schedules))
    numbers = torch.tensor([GRID_SCHEDULES.index(name) for name in runs.schedules])
    theta = {"lr": rates, "schedule": numbers.repeat_interleave(count * len(runs.rates))}
    learner, task = ScheduleByNumber(RULE), tasks.build(runs.spec)
    stacked = stack_tasks([task] * len(rates))
    keys = torch.tensor(list(runs.seeds), dtype=torch.int64).repeat(len(runs.schedules) * len(runs.rates))
    step = training_step(learner, task.program, True, False)
    carry = fresh_carries(learner, theta, stacked, keys, True)
    last, losses = runs.budgets[-1], []
    ahead: Batch = {}
    for t in range(last + 1):
        if t in runs.budgets:
            losses.append(_scores(stacked, carry["params"], keys))
        if t < last:
            if t % BATCHES_AHEAD == 0:
                ahead = training_batches(stacked, keys, torch.full_like(keys, t), min(BATCHES_AHEAD, last - t))
            batch = {name: value[t % BATCHES_AHEAD] for name, value in ahead.items()}
            carry, _, _ = step(theta, stacked.numbers, stacked.shared, carry, batch)
    heldout = torch.stack(losses).numpy().astype(np.float64)
    diverged: NDArray[np.bool_] = np.any(~np.isfinite(heldout), axis=0)
    return Curves(np.array(runs.budgets, np.float64), heldout, np.zeros((0, len(rates))), diverged)


def _scores(stacked: Task, params: Params, keys: torch.Tensor) -> torch.Tensor:
    """Return the losses [N] on the half that scores."""

    def one(numbers: Numbers, shared: Batch, params: Params, key: torch.Tensor) -> torch.Tensor:
        return half_loss(Task(stacked.program, numbers, shared), params, key, SCORING)

    with torch.no_grad():
        losses: torch.Tensor = vmap(one, in_dims=(0, None, 0, 0))(stacked.numbers, stacked.shared, params, keys)
    return losses


@cache
def _own_code() -> str:
    """Return sixteen hex digits for the code of this module and of those that it does not share with other baselines."""
    text = "\f".join(meaningful_source(inspect.getsource(module)) for module in (sys.modules[__name__], grid_schedules, halves))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
