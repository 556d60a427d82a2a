"""A learner in a module of its own, whose runs are therefore kept, and suites for it; a process may be killed while it runs."""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from metaopt import baselines, learners, tasks
from metaopt.baselines import Store
from metaopt.cluster import LocalPool
from metaopt.evaluation import Candidate
from metaopt.evaluation.jobs import EvaluationSetup, JobRunner
from metaopt.evaluation.learner_runs import groups, learner_jobs
from metaopt.evaluation.rows import ScoredTask
from metaopt.learners import GradientLearner

RULE = learners.get("sgd").rule


@dataclass(frozen=True)
class Broken(GradientLearner):
    """Raises on every step."""

    def advance(self, theta, task, carry, batch):
        raise RuntimeError("out of order")


@dataclass(frozen=True)
class SlowLearner(GradientLearner):
    """Takes its time."""

    pause_s: float = 0.0

    def advance(self, theta, task, carry, batch):
        time.sleep(self.pause_s)
        return super().advance(theta, task, carry, batch)


def slow(pause_s: float) -> Candidate:
    return Candidate("slow", SlowLearner(RULE, pause_s=pause_s), {"lr": torch.tensor(0.05)})


def scored(count: int, template: str = "6x6-minimum", horizon: int = 12) -> list[ScoredTask]:
    """Return tasks of one template: they differ in numbers only, hence share a program."""
    specs = [tasks.get("quadratic").sample(template, seed, (horizon, horizon)) for seed in range(count)]
    return [ScoredTask(f"{template}-{i}", spec, 10.0, baselines.evaluation_seeds(spec, 0, 5)) for i, spec in enumerate(specs)]


def apart(count: int) -> list[ScoredTask]:
    """Return tasks that run one by one: their horizons differ."""
    return [replace(task, name=f"apart-{i}") for i in range(count) for task in scored(1, horizon=10 + i)]


if __name__ == "__main__":  # the folder of the store: say each job that is done, until somebody kills this process
    from tests.evaluation.slow_learner import slow  # by its name; as a part of __main__ it would be another class

    desk = JobRunner(LocalPool(EvaluationSetup()), Store(), "cpu", lambda *call: print(*call, flush=True), Store((Path(sys.argv[1]),)))
    desk.learner_curves(learner_jobs(slow(0.02), groups(apart(6)), 5, "cpu"), "learners")
