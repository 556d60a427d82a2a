"""What a hyperparameter policy is compared with: the grid of rates and schedules, and the budgets that baselines need for its loss.

Seeds are those of every evaluation, so that a policy's runs on the same seeds compare in pairs. All losses are those of
`metaopt.tasks.halves.half_loss`, on the half of the held-out examples that scores.

Legend: B budgets, S = 7 schedules, R = 5 rates, K seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaopt.baselines.budget_losses import budget_losses
from metaopt.baselines.budget_runs import RATES, BudgetRuns
from metaopt.baselines.grid_schedules import GRID_SCHEDULES
from metaopt.baselines.reference import DEFAULT_RATE
from metaopt.baselines.store import Store
from metaopt.baselines.tuning import evaluation_seeds
from metaopt.cluster import Pool
from metaopt.errors import ConfigError
from metaopt.tasks import TaskSpec

__all__ = [
    "COSINE_FRACTIONS",
    "HIGHER_RATES",
    "Budgets",
    "EqualLoss",
    "cosine_budgets",
    "cosine_runs",
    "default_budgets",
    "default_runs",
    "grid_runs",
    "grids",
    "steps_to_equal_loss",
]

SEEDS = 5
HIGHER_RATES = (3e-2, 1e-1)  # short runs often want more than the grid's largest, and policies go there
COSINE_FRACTIONS = (1 / 4, 2**-1.5, 1 / 2, 2**-0.5, 1.0, 2**0.5, 2.0)  # of the horizon
CURVE_FRACTIONS = tuple(float(2**i) for i in np.arange(-5, 3.01, 0.25))  # one run is the curve; the default rate is often slow by far
_SHORTEST = 8  # a horizon whose budgets are different numbers of steps

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Budgets:
    """What a baseline reaches with several budgets on one task.

    Attributes:
        fractions: budgets over the task's horizon, rising [B]; whole numbers of steps, hence not quite those that were asked for.
        losses: final losses [B, R, K] by rate and seed.
    """

    fractions: Array
    losses: Array

    def best(self) -> Array:
        """Return the losses [B, K] of each budget's best rate: of the least mean over the seeds, chosen on the very losses returned."""
        with np.errstate(invalid="ignore", over="ignore"):
            means = self.losses.mean(axis=-1)
        chosen = np.where(np.isfinite(means), means, np.inf).argmin(axis=1)
        best: Array = np.take_along_axis(self.losses, chosen[:, None, None], axis=1)[:, 0]
        return best


class EqualLoss(NamedTuple):
    """Budgets at which a baseline has certain losses.

    Attributes:
        factor: over the task's horizon [...]: above 1 where the baseline needs more steps than the run that it is compared with.
        at_most: the loss is worse than the baseline's with its smallest budget, or not finite: the factor is that budget, the true one at
            most so large [...].
        at_least: the loss is better than the baseline's with any of its budgets: the factor is the largest, the true one at least that.
    """

    factor: Array
    at_most: Mask
    at_least: Mask


def steps_to_equal_loss(loss: ArrayLike, fractions: ArrayLike, losses: ArrayLike) -> EqualLoss:
    """Return the budget that a baseline needs for losses [...], by interpolation of its losses, linear in log budget.

    The baseline's losses are made monotone by their running minimum: who may spend more steps may also spend fewer. Equal parts of the
    curve are read at their first budget. Multiplying all losses by c > 0 or adding to them changes nothing but rounding.

    Args:
        loss: of the run that is compared.
        fractions: budgets of the baseline over the horizon of that run, rising, above 0 [B].
        losses: of the baseline [B]; one that is not finite is as good as none.

    Raises:
        ConfigError: fractions or shapes other than these.
    """
    t_B, baseline = np.asarray(fractions, np.float64), np.asarray(losses, np.float64)
    if t_B.ndim != 1 or not len(t_B) or t_B.shape != baseline.shape or t_B[0] <= 0 or not (np.diff(t_B) > 0).all():
        raise ConfigError(f"fractions must rise from above 0, with a loss for each, got {t_B.tolist()} and {baseline.tolist()}")
    asked = np.asarray(loss, np.float64)
    usable = np.isfinite(baseline)
    if not usable.any():  # it gets nowhere with any budget
        finite: Mask = np.isfinite(asked)
        return EqualLoss(np.where(finite, t_B[-1], t_B[0]), ~finite, finite)
    log_t, best = np.log(t_B[usable]), np.minimum.accumulate(baseline[usable])
    wanted = np.where(np.isfinite(asked), asked, np.inf)
    after = np.searchsorted(-best, -wanted)  # the first budget with at most this loss
    at_most: Mask = wanted > best[0]
    at_least: Mask = after == len(best)
    right = np.clip(after, 1, max(1, len(best) - 1))
    left, right = right - 1, np.minimum(right, len(best) - 1)
    fall = best[left] - best[right]
    share = np.clip((best[left] - np.where(at_most, best[0], wanted)) / np.where(fall > 0, fall, 1.0), 0.0, 1.0)
    inside = log_t[left] + share * (log_t[right] - log_t[left])
    factor = np.exp(np.where(at_least, log_t[-1], np.where(after == 0, log_t[0], inside)))
    return EqualLoss(factor, at_most, at_least)


def grid_runs(spec: TaskSpec) -> list[BudgetRuns]:
    """Return the runs of a task's grid, 35 for each seed as a program of their own: as many as fit into memory for larger models too."""
    seeds = evaluation_seeds(spec, 0, SEEDS)
    return [BudgetRuns(spec, GRID_SCHEDULES, RATES, (seed,), (spec.horizon,)) for seed in seeds]


def grids(specs: Sequence[TaskSpec], store: Store | None = None, pool: Pool | None = None) -> list[Array]:
    """Return the final losses [S, R, K] of AdamW on each task, in the order of `GRID_SCHEDULES`, `RATES` and evaluation seeds.

    What the store lacks is computed and kept, see `budget_losses` for its arguments and errors.
    """
    wanted = [grid_runs(spec) for spec in specs]
    return [np.concatenate([losses[-1] for losses in found], axis=-1) for found in _grouped(wanted, store, pool)]


def cosine_runs(spec: TaskSpec, rates: tuple[float, ...] = RATES) -> list[BudgetRuns]:
    """Return the runs of `cosine_budgets` on a task, one program for each budget.

    Raises:
        ConfigError: a horizon below 8.
    """
    seeds = evaluation_seeds(spec, 0, SEEDS)
    stretched = [replace(spec, horizon=steps) for steps in _whole_steps(spec, COSINE_FRACTIONS)]
    return [BudgetRuns(one, ("cosine",), rates, seeds, (one.horizon,)) for one in stretched]


def cosine_budgets(
    specs: Sequence[TaskSpec], store: Store | None = None, pool: Pool | None = None, rates: tuple[float, ...] = RATES
) -> list[Budgets]:
    """Return what AdamW reaches on each task with a cosine to 0 over budgets of a quarter to twice the horizon, at some rates.

    Each budget is a run of its own, whose schedule ends there. Other arguments and errors are those of `budget_losses`.

    Raises:
        ConfigError: a horizon below 8.
    """
    wanted = [cosine_runs(spec, rates) for spec in specs]
    return [
        Budgets(np.array([one.spec.horizon for one in runs]) / spec.horizon, np.stack([losses[-1, 0] for losses in found]))
        for spec, runs, found in zip(specs, wanted, _grouped(wanted, store, pool), strict=True)
    ]


def default_runs(spec: TaskSpec) -> BudgetRuns:
    """Return the runs of `default_budgets` on a task.

    Raises:
        ConfigError: a horizon below 8.
    """
    return BudgetRuns(spec, ("constant",), (DEFAULT_RATE,), evaluation_seeds(spec, 0, SEEDS), _whole_steps(spec, CURVE_FRACTIONS))


def default_budgets(specs: Sequence[TaskSpec], store: Store | None = None, pool: Pool | None = None) -> list[Budgets]:
    """Return what AdamW at a constant 1e-3 has on each task after 1/32 to eight times the horizon; it is one run, so R = 1.

    Arguments and errors are those of `cosine_budgets`.
    """
    wanted = [default_runs(spec) for spec in specs]
    found = budget_losses(wanted, store, pool)
    return [Budgets(np.array(runs.budgets) / runs.spec.horizon, losses[:, 0]) for runs, losses in zip(wanted, found, strict=True)]


def _whole_steps(spec: TaskSpec, fractions: Sequence[float]) -> tuple[int, ...]:
    if spec.horizon < _SHORTEST:
        raise ConfigError(f"budgets need a horizon of at least {_SHORTEST} inner steps, got {spec.horizon}")
    return tuple(sorted({max(1, round(spec.horizon * fraction)) for fraction in fractions}))


def _grouped(wanted: Sequence[Sequence[BudgetRuns]], store: Store | None, pool: Pool | None) -> list[list[Array]]:
    """Return the losses of each set of each group; all are one piece of work for the pool."""
    found = iter(budget_losses([runs for group in wanted for runs in group], store, pool))
    return [[next(found) for _ in group] for group in wanted]
