"""What a loss on a task is worth beside AdamW at constant rates: the references of a policy's reward, and the reward.

Each task has one set of runs: five constant rates, three seeds, evaluated at initialisation and at fourteen budgets between the smallest
that a reward distinguishes and the horizon. Seeds are averaged before a power law is fitted: a reward compares with what the baseline
does on average, and a curve of one run is noisier than what it is compared with.

The budgets begin at e^-3 of the horizon, where rewards are clipped. Earlier ones would only bend the fit: of forty short tasks
(quadratics, digits, tables, text) 34 give a sound one at the default rate and 30 at the best of five from there, 31 and 29 from 1/32 on,
29 and 24 from 1/64. What is refused is nearly always a small table, on which the baseline overfits or is done early.

Losses are those of `metaopt.tasks.halves.half_loss`: on the half of the held-out examples that scores, normalised, without the task's cap.
A curve on all examples would shift scores of the half by 0.1 to 0.6 on small data sets, either way and differently for every task.

Legend: B budgets, R rates, K seeds.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaopt.baselines.budget_losses import budget_losses
from metaopt.baselines.budget_runs import RATES, BudgetRuns
from metaopt.baselines.power_curve import WORST, PowerCurve, fit_power_curve, reward
from metaopt.baselines.store import Store
from metaopt.cluster import Pool
from metaopt.errors import ConfigError
from metaopt.names import nearest
from metaopt.seeds import stable_hash
from metaopt.tasks import TaskSpec

__all__ = [
    "AGAINST",
    "DEFAULT_RATE",
    "Against",
    "Reference",
    "degenerate",
    "make_reference",
    "reference",
    "reference_runs",
    "references",
    "score",
]

Against = Literal["default", "best_constant"]
AGAINST: tuple[Against, ...] = ("default", "best_constant")

DEFAULT_RATE = 1e-3
BUDGETS = 14
SEEDS = 3  # those of tuning: evaluation never sees them

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """What AdamW does on a task at constant rates.

    Attributes:
        start: mean loss at initialisation.
        finals: mean loss at the horizon by rate, in the order of `RATES`.
        best_rate: that of the least final loss, which is chosen on the very runs that make its curve.
        default: the fit of the curve at `DEFAULT_RATE`.
        best_constant: the fit of that at `best_rate`.
    """

    start: float
    finals: tuple[float, ...]
    best_rate: float
    default: PowerCurve
    best_constant: PowerCurve

    def curve(self, against: Against) -> PowerCurve:
        """Return one of the fits.

        Raises:
            ConfigError: no such reference.
        """
        if against not in AGAINST:
            raise ConfigError(f"reference {against!r} is unknown{nearest(against, AGAINST)}")
        return self.default if against == "default" else self.best_constant

    def summary(self) -> tuple[float, float, float]:
        """Return largest, median and mean final loss over the rates; one that is not finite counts as the loss at initialisation."""
        finals = np.array([final if math.isfinite(final) else self.start for final in self.finals])
        return float(finals.max()), float(np.median(finals)), float(finals.mean())


def reference(spec: TaskSpec, store: Store | None = None) -> Reference:
    """Return the reference of one task; see `references`."""
    return references([spec], store)[0]


def references(specs: Sequence[TaskSpec], store: Store | None = None, pool: Pool | None = None) -> list[Reference]:
    """Return the reference of each task; runs that the store lacks are computed and kept in it.

    The fifteen runs of a task are one program, and only they: a reference does not depend on which other tasks were asked for with it.

    Args:
        specs: tasks, with the horizon that policies will have.
        store: default: the bundled one and the user's cache, `$METAOPT_CACHE/baselines`.
        pool: of workers built from `budget_losses.BudgetSetup`; None for this process.

    Raises:
        WorkerLostError: the runs of a task failed three times on the pool.
    """
    wanted = [reference_runs(spec) for spec in specs]
    return [make_reference(runs, losses) for runs, losses in zip(wanted, budget_losses(wanted, store, pool), strict=True)]


def reference_runs(spec: TaskSpec) -> BudgetRuns:
    """Return the runs that make a task's reference; short horizons have fewer than fourteen budgets, for these are whole steps.

    Raises:
        ConfigError: fewer than four budgets: a horizon below 4.
    """
    budgets = sorted({max(1, round(spec.horizon * fraction)) for fraction in np.geomspace(math.exp(WORST), 1.0, BUDGETS)})
    if len(budgets) < 4:
        raise ConfigError(f"a reference needs a horizon of at least 4 inner steps, got {spec.horizon}")
    seeds = tuple(stable_hash("tune", spec.hash, k) for k in range(SEEDS))
    return BudgetRuns(spec, ("constant",), RATES, seeds, (0, *budgets))


def make_reference(runs: BudgetRuns, losses: Array) -> Reference:
    """Return the reference of runs [B, 1, R, K], the first budget being 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        mean_BR = losses[:, 0].mean(axis=-1)
    finals = mean_BR[-1]
    best = int(np.argmin(np.where(np.isfinite(finals), finals, np.inf)))
    fractions = np.array(runs.budgets) / runs.spec.horizon
    default, best_constant = (fit_power_curve(fractions, mean_BR[:, r]) for r in (runs.rates.index(DEFAULT_RATE), best))
    return Reference(float(mean_BR[0, 0]), tuple(finals.tolist()), runs.rates[best], default, best_constant)


def score(loss: ArrayLike, found: Reference, against: Against) -> Array:
    """Return the reward of losses [...] at the horizon, from -3 to log 2: log of the budget that the baseline needs, over the horizon.

    Args:
        loss: as `metaopt.tasks.halves.half_loss` gives it, on the half that scores; -3 where it is not finite.
        found: the task's reference.
        against: "default" is AdamW at 1e-3, "best_constant" the best of five constant rates.

    Raises:
        TaskError: the reference's curve is degenerate.
        ConfigError: no such reference.
    """
    return reward(found.curve(against), loss)


def degenerate(found: Sequence[Reference], against: Against) -> Counter[str]:
    """Return how many references cannot score, by reason."""
    return Counter(reason for one in found if (reason := one.curve(against).degenerate) is not None)
