"""What looking ahead too short costs on the noisy quadratic: every planning rule's schedule, and the tables of them.

Rules differ in what they minimise, not in what they know: all but hypergradient descent see the exact expected loss. What is left is the
bias of the horizon.

Legend: D directions, T steps, S settings, R rules.

Source: Wu, Ren, Liao, Grosse, 2018, "Understanding short-horizon bias in stochastic meta-optimization", sections 2 and 4.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from metaopt.tasks.oracles.noisy_quadratic import (
    Array,
    NoisyQuadratic,
    block_horizon_schedule,
    excess_loss,
    final_loss,
    greedy_schedule,
    hypergradient_descent_schedule,
    moments,
    optimal_schedule,
    spectrum_problem,
)

__all__ = [
    "HORIZONS",
    "NQM_100",
    "SPECTRA",
    "STEPS",
    "Rule",
    "SpectrumRow",
    "best_constant",
    "best_power_decay",
    "losses_of",
    "power_decay",
    "rules",
    "spectrum_rows",
]

NQM_100 = spectrum_problem(np.logspace(0, -3, 100), 100)
STEPS = 250
HORIZONS = (1, 2, 5, 10, 25, 50, 100, 250)
TUNED_AT = (10, 25, 50, 100, 250)
DESCENTS = tuple((hyper, rate) for hyper in (1e-3, 1e-2) for rate in (1e-3, 0.1, 1.0))  # hyper rate, initial rate
_DECAY_TIME = 62.5  # steps until (1 + t / time) has doubled: a quarter of the horizon
_CONSTANTS, _STARTS = np.arange(1, 401) / 400, np.arange(1, 41) / 40  # fractions of the edge of stability
_POWERS = np.arange(61) / 10

SPECTRA = {"logspace": np.logspace(0, -3, 1000), "1/i": 1.0 / np.arange(1.0, 1001.0)}
BATCHES = (1, 10, 100, 1000)


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule's schedule and what it led to.

    Attributes:
        name: as in tables.
        family: `block`, `constant`, `power` or `descent`.
        horizon: steps that the rule looked ahead; 1 for hypergradient descent.
        rates: [T].
        losses: expected excess loss before the first step and after each [T + 1].
    """

    name: str
    family: str
    horizon: int
    rates: Array
    losses: Array

    @property
    def final(self) -> float:
        """Expected excess loss after the last step."""
        return float(self.losses[-1])


def losses_of(problem: NoisyQuadratic, rates_ST: Array) -> Array:
    """Return the expected excess losses [S, T] after each step of S schedules."""
    h, now, found = problem.curvature, np.tile(problem.start, (len(rates_ST), 1)), []
    for rates_S in rates_ST.T:
        step = rates_S[:, None] * h
        now = (1.0 - step) ** 2 * now + step**2 * problem.noise
        found.append(excess_loss(problem, now))
    return np.stack(found, axis=1)


def best_constant(problem: NoisyQuadratic, steps: int) -> float:
    """Return the constant rate with the smallest final loss, among 400 up to the edge of stability."""
    rates = _CONSTANTS * problem.largest_rate
    return float(rates[losses_of(problem, np.tile(rates[:, None], (1, steps)))[:, -1].argmin()])


def power_decay(start: float, power: float, steps: int) -> Array:
    """Return the rates [T] start (1 + t / 62.5)^-power."""
    decayed: Array = start * (1.0 + np.arange(steps) / _DECAY_TIME) ** -power
    return decayed


def best_power_decay(problem: NoisyQuadratic, horizons: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Return, for each horizon, the (start, power) with the smallest loss after that many steps: 40 starts times 61 powers up to 6.

    A tie, as a power that a single step cannot see, goes to the smaller power, then the smaller start.
    """
    settings = [(start * problem.largest_rate, power) for power in _POWERS for start in _STARTS]
    losses_ST = losses_of(problem, np.stack([power_decay(start, power, max(horizons)) for start, power in settings]))
    chosen = {horizon: settings[losses_ST[:, horizon - 1].argmin()] for horizon in horizons}
    return {horizon: (float(start), float(power)) for horizon, (start, power) in chosen.items()}


def rules(problem: NoisyQuadratic = NQM_100, steps: int = STEPS, only: Iterable[str] = ()) -> list[Rule]:
    """Return the rules of the table, in its order.

    Args:
        problem: the problem.
        steps: T, >= 1; horizons beyond it are left out.
        only: families that are wanted; all if empty.
    """
    wanted = set(only) or {"block", "constant", "power", "descent"}
    planned: list[tuple[str, str, int, Callable[[], Array]]] = []
    for horizon in (one for one in HORIZONS if one < steps):
        name = "greedy" if horizon == 1 else f"plan {horizon} steps"
        make = partial(greedy_schedule, problem, steps, problem.largest_rate)
        planned.append((name, "block", horizon, make if horizon == 1 else partial(block_horizon_schedule, problem, steps, horizon)))
    planned.append((f"optimal ({steps})", "block", steps, partial(optimal_schedule, problem, steps)))
    if "constant" in wanted:
        rate = best_constant(problem, steps)
        planned.append((f"best constant {rate:.3f}", "constant", steps, partial(np.full, steps, rate)))
    if "power" in wanted:
        for horizon, (start, power) in best_power_decay(problem, [one for one in TUNED_AT if one <= steps]).items():
            name = f"{start:.2g} (1 + t/62.5)^-{power:.1f}, tuned at {horizon}"
            planned.append((name, "power", horizon, partial(power_decay, start, power, steps)))
    for hyper, rate in DESCENTS:
        name = f"hypergradient descent {hyper:g} from {rate:g}"
        planned.append((name, "descent", 1, partial(hypergradient_descent_schedule, problem, steps, rate, hyper)))
    found = []
    for name, family, horizon, schedule in planned:
        if family in wanted:
            rates = schedule()
            found.append(Rule(name, family, horizon, rates, excess_loss(problem, moments(problem, rates))))
    return found


@dataclass(frozen=True)
class SpectrumRow:
    """Final losses on one problem of a thousand directions.

    Attributes:
        spectrum: key of `SPECTRA`.
        batch_size: of the noise H / B.
        greedy, constant, optimal: expected excess losses after the last step.
        constant_rate: the best constant rate.
    """

    spectrum: str
    batch_size: int
    greedy: float
    constant: float
    optimal: float
    constant_rate: float


def spectrum_rows(batches: Sequence[int] = BATCHES, steps: int = STEPS) -> list[SpectrumRow]:
    """Return a row for each spectrum and batch size."""
    rows = []
    for name, curvature in SPECTRA.items():
        for batch in batches:
            problem = spectrum_problem(curvature, batch)
            rate = best_constant(problem, steps)
            schedules = (greedy_schedule(problem, steps), np.full(steps, rate), optimal_schedule(problem, steps))
            greedy, constant, optimal = (final_loss(problem, schedule) for schedule in schedules)
            rows.append(SpectrumRow(name, batch, greedy, constant, optimal, rate))
    return rows
