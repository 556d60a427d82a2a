"""The noisy quadratic problem: a training run whose expected loss is exact, so that schedules of the step size can be planned exactly.

The loss of a batch is 1/2 sum_i h_i (w_i - c_i)^2 with fresh targets c_i of mean 0 and variance s_i. The expected excess loss depends on
the second moments A_i = E[w_i^2] alone, which follow a recursion. Everything here is numpy in float64; nothing is drawn.

Legend: D directions, T steps.

Source: Wu, Ren, Liao, Grosse, 2018, "Understanding short-horizon bias in stochastic meta-optimization" (the problem, its recursions and the
greedy schedule); Zhang et al., 2019, "Which algorithmic choices matter at which batch sizes?" (noise of covariance H / B).
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NoisyQuadratic",
    "block_horizon_schedule",
    "excess_loss",
    "expected_hypergradient",
    "final_loss",
    "greedy_schedule",
    "hypergradient_descent_schedule",
    "moments",
    "momentum_moments",
    "optimal_schedule",
    "schedule_gradient",
    "spectrum_problem",
    "stationary_moments",
]

TOLERANCE = 1e-12  # relative change of the loss at which the sweeps of `optimal_schedule` stop
_SWEEPS = 100_000

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NoisyQuadratic:
    """A noisy quadratic problem in its eigenbasis.

    Attributes:
        curvature: eigenvalues h of the Hessian [D], > 0.
        noise: variance s of the targets [D], >= 0; the gradient of a batch has the variance h^2 s.
        start: second moments A_0 of the weights [D], >= 0.
    """

    curvature: Array
    noise: Array
    start: Array

    def __post_init__(self) -> None:
        shapes = {np.shape(one) for one in (self.curvature, self.noise, self.start)}
        if len(shapes) > 1 or self.curvature.ndim != 1 or self.curvature.size == 0:
            raise ValueError(f"curvature, noise and start must be vectors of one length, got shapes {sorted(shapes)}")
        if not ((self.curvature > 0).all() and (self.noise >= 0).all() and (self.start >= 0).all()):
            raise ValueError("curvature must be > 0, noise and start >= 0")

    @property
    def largest_rate(self) -> float:
        """The edge of stability, 2 / max h: a larger constant rate diverges."""
        return 2.0 / float(self.curvature.max())


def spectrum_problem(curvature: Array, batch_size: float, start: float = 1.0) -> NoisyQuadratic:
    """Return the problem whose gradient noise has the covariance H / B, hence targets of variance 1 / (B h).

    `spectrum_problem(np.logspace(0, -3, 100), 100)` is the problem of the tables in the documentation.
    """
    return NoisyQuadratic(curvature, 1.0 / (batch_size * curvature), np.full_like(curvature, start))


def excess_loss(problem: NoisyQuadratic, second_moments: Array) -> Array:
    """Return the expected loss over that of the minimum: second moments [..., D] -> [...]."""
    return cast(Array, 0.5 * (problem.curvature * second_moments).sum(axis=-1))


def moments(problem: NoisyQuadratic, rates_T: Array) -> Array:
    """Return the second moments [T + 1, D] before the first step of SGD and after each one: A' = (1 - a h)^2 A + a^2 h^2 s."""
    h, found = problem.curvature, [problem.start]
    for rate in rates_T:
        found.append((1.0 - rate * h) ** 2 * found[-1] + (rate * h) ** 2 * problem.noise)
    return np.stack(found)


def final_loss(problem: NoisyQuadratic, rates_T: Array) -> float:
    """Return the expected excess loss after SGD with these rates."""
    return float(excess_loss(problem, moments(problem, rates_T)[-1]))


def momentum_moments(problem: NoisyQuadratic, rates_T: Array, momentum: float) -> Array:
    """Return E[w^2] [T + 1, D] under the heavy ball v' = m v + g, w' = w - a v', from v = 0.

    S' = M S M^T + s b b^T with M = [[1 - a h, -a m], [h, m]] and b = (a h, -h), S being the second moments of (w, v).
    """
    h = problem.curvature
    ww, wv, vv = problem.start, np.zeros_like(h), np.zeros_like(h)
    found = [ww]
    for a in rates_T:
        p, q = 1.0 - a * h, -a * momentum
        ww, wv, vv = (
            p * p * ww + 2 * p * q * wv + q * q * vv + problem.noise * (a * h) ** 2,
            p * h * ww + (p * momentum + q * h) * wv + q * momentum * vv - problem.noise * a * h * h,
            h * h * ww + 2 * h * momentum * wv + momentum**2 * vv + problem.noise * h * h,
        )
        found.append(ww)
    return np.stack(found)


def stationary_moments(problem: NoisyQuadratic, rate: float, momentum: float = 0.0) -> Array:
    """Return E[w^2] [D] after infinitely many steps at a constant rate below the edge of stability."""
    step = rate * problem.curvature
    return step * problem.noise * (1.0 + momentum) / ((1.0 - momentum) * (2.0 * (1.0 + momentum) - step))


def schedule_gradient(problem: NoisyQuadratic, rates_T: Array) -> Array:
    """Return the exact derivative of the final excess loss by every rate [T], by the adjoint of the recursion."""
    h, before = problem.curvature, moments(problem, rates_T)
    gradient, adjoint = np.empty(len(rates_T)), 0.5 * h
    for t in reversed(range(len(rates_T))):
        kept = 1.0 - rates_T[t] * h
        gradient[t] = (adjoint * (-2.0 * h * kept * before[t] + 2.0 * rates_T[t] * h * h * problem.noise)).sum()
        adjoint = adjoint * kept**2
    return gradient


def greedy_schedule(problem: NoisyQuadratic, steps: int, largest: float = np.inf) -> Array:
    """Return the rates [T] that each minimise the loss after their own step: sum h^2 A / sum h^3 (A + s), at most `largest`."""
    h, now, rates = problem.curvature, problem.start, np.empty(steps)
    for t in range(steps):
        rates[t] = min((h**2 * now).sum() / (h**3 * (now + problem.noise)).sum(), largest)
        now = (1.0 - rates[t] * h) ** 2 * now + (rates[t] * h) ** 2 * problem.noise
    return rates


def optimal_schedule(problem: NoisyQuadratic, steps: int, largest: float | None = None, start: Array | None = None) -> Array:
    """Return the rates [T] that minimise the loss after the last step.

    The final loss is quadratic in each single rate, so every sweep sets all of them to their minimum, the last one first; sweeps go on
    until the loss changes by less than 1e-12 of itself. Jointly the problem is not convex: without a bound that keeps rates stable, a
    schedule as long as there are directions ends one of them a step, and different starts find different optima.

    Args:
        problem: the problem.
        steps: T >= 1.
        largest: bound of every rate; default: the edge of stability.
        start: rates to begin with [T]; default: greedy ones.

    Raises:
        RuntimeError: no convergence.
    """
    bound = problem.largest_rate if largest is None else largest
    h, rates = problem.curvature, (greedy_schedule(problem, steps, bound) if start is None else start.astype(np.float64).copy())
    last = np.inf
    for _ in range(_SWEEPS):
        before = moments(problem, rates)
        loss = float(excess_loss(problem, before[-1]))
        if abs(last - loss) <= TOLERANCE * loss:
            return rates
        last, adjoint = loss, 0.5 * h
        for t in reversed(range(steps)):
            best = (adjoint * h * before[t]).sum() / (adjoint * h * h * (before[t] + problem.noise)).sum()
            rates[t] = min(max(best, 0.0), bound)
            adjoint = adjoint * (1.0 - rates[t] * h) ** 2
    raise RuntimeError(f"optimal_schedule did not converge in {_SWEEPS} sweeps")


def block_horizon_schedule(problem: NoisyQuadratic, steps: int, horizon: int, largest: float | None = None) -> Array:
    """Return the rates [T] of a planner who always plans `horizon` steps optimally, takes them all, and plans again; 1 is greedy."""
    now, parts = problem, []
    for begin in range(0, steps, horizon):
        plan = optimal_schedule(now, min(horizon, steps - begin), largest)
        now = NoisyQuadratic(problem.curvature, problem.noise, moments(now, plan)[-1])
        parts.append(plan)
    return np.concatenate(parts)


def expected_hypergradient(problem: NoisyQuadratic, second_moments: Array, rate: float) -> float:
    """Return E[g_{t+1} . g_t], what hypergradient descent follows: minus the derivative of the next batch's loss by the rate.

    It is zero at the greedy rate. At the stationary moments of any stable rate it is negative: once noise dominates, a one-step method
    lowers its rate for ever, whatever the rate is.
    """
    h = problem.curvature
    return float((h**2 * ((1.0 - rate * h) * second_moments - rate * h * problem.noise)).sum())


def hypergradient_descent_schedule(problem: NoisyQuadratic, steps: int, rate: float, hyper_rate: float) -> Array:
    """Return the rates [T] of hypergradient descent in expectation: the rate moves by `hyper_rate` times `expected_hypergradient`."""
    h, now, rates = problem.curvature, problem.start, np.empty(steps)
    for t in range(steps):
        rates[t] = rate
        signal = expected_hypergradient(problem, now, rate)
        now = (1.0 - rate * h) ** 2 * now + (rate * h) ** 2 * problem.noise
        rate = rate + hyper_rate * signal
    return rates
