"""Influence balancing: a linear system whose short-horizon derivative has the wrong sign.

n = 23, p = 10: s' = A s + theta b, loss 0.5 (s_1 - 1)^2 after each step, mean over T = 100 steps, theta = 0.5. True derivative 35.716.
Exact derivatives that forget what was before their window of W steps: -0.26, -1.78, -3.71 for W = 1, 10, 25.
Source: Tallec, Ollivier, 2017, "Unbiased online recurrent optimization"; horizon and losses as in Vicol et al., 2021 (PES).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor

from metaopt import estimators
from metaopt.estimators import Recipe, backprop, evolution, noise_reuse, tangents
from metaopt.learners.learner import StepRecord
from metaopt.tasks.task import Task

N, P = 23, 10
TRUTH = 35.716


def matrix(dtype: torch.dtype) -> Tensor:
    return 0.5 * (torch.eye(N, dtype=dtype) + torch.diag(torch.ones(N - 1, dtype=dtype), 1))


@dataclass(frozen=True)
class Nothing:
    """A task without content: the learner is the whole system."""

    cap: float = 1e12

    def shared(self):
        return {}

    def batch(self, numbers, shared, key, step):
        return {}

    heldout = batch

    def normalise(self, numbers, raw):
        return raw


@dataclass(frozen=True)
class Balancing:
    def init_theta(self, seed: int = 0):
        return {"theta": torch.tensor(0.5, dtype=torch.float64)}

    def init(self, theta, task, key):
        return {"s": torch.ones(N, dtype=torch.float64)}

    def advance(self, theta, task, carry, batch):
        b = torch.cat([torch.ones(P, dtype=torch.float64), -torch.ones(N - P, dtype=torch.float64)])
        s = matrix(torch.float64) @ carry["s"] + theta["theta"] * b
        return {"s": s}, StepRecord(0.5 * (s[0] - 1.0) ** 2)


@dataclass(frozen=True)
class Endless:
    horizon: int = 100
    staggered: bool = False

    def task(self, particle, episode):
        return Task(Nothing(), {"horizon": torch.tensor(float(self.horizon), dtype=torch.float64)}, {})

    def run_seed(self, particle, episode):
        return particle

    def stagger(self, particle):
        return (particle % 10) / 10 if self.staggered else 0.0


@contextmanager
def recorded() -> Iterator[list[Tensor]]:
    """Collect what the members of an estimator (pairs or particles) contribute to each estimate [N, P], before their mean."""
    kept: list[Tensor] = []

    def charged(*args):
        kept.append(charged_gradient(*args))
        return kept[-1]

    def mean(grad_MP, clip):
        kept.append(grad_MP)
        return particle_mean(grad_MP, clip)

    charged_gradient, particle_mean = evolution.charged_gradient, backprop.particle_mean
    with (
        patch.object(evolution, "charged_gradient", charged),
        patch.object(noise_reuse, "charged_gradient", charged),
        patch.object(backprop, "particle_mean", mean),
        patch.object(tangents, "particle_mean", mean),
    ):
        yield kept


def member_estimates(recipe: Recipe, learner, episodes, theta, pairs: int, estimates: int, skip: int = 0, seed: int = 0) -> Tensor:
    """Return each member's mean over several estimates [N, P] at a fixed theta, after `skip` others."""
    estimator = recipe.build(learner, episodes, pairs, seed)
    for k in range(skip):
        estimator.estimate(theta, k)
    with recorded() as kept:
        got = [estimators.flatten(estimator.estimate(theta, skip + k).grad) for k in range(estimates)]
    members = torch.stack(kept).mean(0)
    torch.testing.assert_close(members.mean(0), torch.stack(got).mean(0), rtol=1e-9, atol=1e-12)
    return members


def standard_error(members: Tensor) -> Tensor:
    """Return the standard error [P] of the mean over members."""
    return members.std(0) / len(members) ** 0.5


WINDOWS = (1, 10, 25, 100)
TABLE: tuple[tuple[str, dict[str, object], tuple[int, ...]], ...] = (
    ("truncated_es", {"sigma": 0.1}, WINDOWS),
    ("pes", {"sigma": 0.1}, WINDOWS),
    ("gpes", {"sigma": 0.1, "reuse_steps": 50}, WINDOWS[:3]),
    ("nres", {"sigma": 0.1}, WINDOWS),
    ("es_single", {"sigma": 0.1}, WINDOWS),
    ("full_es", {"sigma": 0.1}, (100,)),
    ("truncated_backprop", {}, WINDOWS),
    ("full_backprop", {}, (100,)),
    ("forward_mode", {}, (10,)),
    ("uoro", {}, (10,)),
)


def main(pairs: int) -> None:
    """Print mean, standard error and variance of each estimator over one episode, theta fixed."""
    theta = Balancing().init_theta()
    for name, options, windows in TABLE:
        for window in windows:
            recipe = estimators.ESTIMATORS[name](window=window, **options)
            exact = name in ("truncated_backprop", "full_backprop", "forward_mode")  # nothing is drawn
            count, windows = 1 if exact else pairs, 1 if name.startswith("full") else 100 // window
            members = member_estimates(recipe, Balancing(), Endless(), theta, count, windows)
            spread = "" if exact else f" +- {float(standard_error(members)):.2f}  variance {float(members.var()):.3g}"
            print(f"{name:18} W={window:<4} {float(members.mean()):8.2f}{spread}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)  # 40,000 take about fifteen minutes on one core
