"""What N numbers a schedule cost on the noisy quadratic: the best shared schedule over the best of all, both found by exact derivatives.

python -m tests.oracles.shared_schedules prints the table of docs/learned-schedules.md.
"""

import math

import numpy as np
from scipy.optimize import minimize

from metaopt.tasks.oracles.noisy_quadratic import final_loss, greedy_schedule, optimal_schedule, schedule_gradient, spectrum_problem

PROBLEM = spectrum_problem(np.logspace(0, -3, 100), 100)
LARGEST = 2.0  # the edge of stability; planned schedules are held below it too
VALUES, HORIZONS, SHAPES = (2, 4, 8, 16), (100, 1000), ("constant", "linear")


def weights(shape, count, steps):
    """Return the matrix [T, N] that makes coordinates of a run from N of a schedule."""
    t = np.arange(steps)
    if shape == "constant":
        return np.eye(count)[t * count // steps]
    place = t / steps * (count - 1)
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(count)))


def best_shared(shape, count, steps):
    """Return the least final loss of a shared schedule over several starts, which need not agree: the problem is not convex."""
    spread = weights(shape, count, steps)

    def loss(coordinates):
        rates = np.exp(spread @ coordinates)
        return math.log(final_loss(PROBLEM, rates)), spread.T @ (rates * schedule_gradient(PROBLEM, rates)) / final_loss(PROBLEM, rates)

    starts = [np.full(count, math.log(rate)) for rate in (0.1, 0.5, 1.5)] + [
        np.linspace(math.log(1.9), math.log(last), count) for last in (0.3, 0.03)
    ]
    bounds = [(math.log(1e-4), math.log(LARGEST))] * count
    return math.exp(min(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).fun for start in starts))


if __name__ == "__main__":
    print(f"| | {' | '.join(f'N = {count}' for count in VALUES)} | greedy |")
    print("|---|" + "---:|" * (len(VALUES) + 1))
    for steps in HORIZONS:
        best = final_loss(PROBLEM, optimal_schedule(PROBLEM, steps))
        greedy = final_loss(PROBLEM, greedy_schedule(PROBLEM, steps)) / best
        for shape in SHAPES:
            found = " | ".join(f"{best_shared(shape, count, steps) / best:.2f}" for count in VALUES)
            print(f"| {shape}, T = {steps:,} | {found} | {greedy:.1f} |", flush=True)
