"""Influence balancing: a linear system whose short-horizon derivative has the wrong sign.

n = 23, p = 10: s' = A s + theta b, loss 0.5 (s_1 - 1)^2 after each step, mean over T = 100 steps, theta = 0.5. True derivative 35.716.
Source: Tallec, Ollivier, 2017, "Unbiased online recurrent optimization"; horizon and losses as in Vicol et al., 2021 (PES).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt.estimators import Evolution
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


def main(pairs: int = 10_000, sigma: float = 0.1) -> None:
    """Print mean and standard error of each estimator over one episode, theta fixed."""
    theta = Balancing().init_theta()
    for kind, windows in (("truncated_es", (1, 10, 25, 100)), ("pes", (1, 10, 25, 100)), ("full_es", (100,))):
        for window in windows:
            runs = []
            for seed in range(20):  # independent groups of pairs give the standard error
                estimator = Evolution(kind, Balancing(), Endless(), pairs // 20, sigma, window, seed)
                runs.append(sum(float(estimator.estimate(theta, k).grad["theta"]) for k in range(100 // window)) / (100 // window))
            values = torch.tensor(runs, dtype=torch.float64)
            print(f"{kind:13} W={window:<4} {values.mean():7.2f} +- {values.std() / 20**0.5:.2f}")


if __name__ == "__main__":
    main()
