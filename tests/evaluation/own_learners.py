"""Learners in a module of their own, whose runs are therefore kept, and tasks for them."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from metaopt import baselines, learners, tasks
from metaopt.baselines import Store
from metaopt.cluster import LocalPool
from metaopt.evaluation import Candidate
from metaopt.evaluation.runs.jobs import EvaluationSetup, JobRunner
from metaopt.evaluation.runs.learner_runs import groups, learner_jobs
from metaopt.evaluation.tables.rows import ScoredTask
from metaopt.learners import GradientLearner

RULE = learners.get("sgd").rule


@dataclass(frozen=True)
class Broken(GradientLearner):
    """Raises on every step."""

    def advance(self, theta, task, carry, batch):
        raise RuntimeError("out of order")


@dataclass(frozen=True)
class Own(GradientLearner):
    """Descends twice as fast."""

    def advance(self, theta, task, carry, batch):
        return super().advance({"lr": 2.0 * theta["lr"]}, task, carry, batch)


OWN = Candidate("own", Own(RULE), {"lr": torch.tensor(0.02)})


class HangsInTheFourthJob:
    """Computes three jobs, and then no more."""

    count = 0

    def build(self):
        return self

    def handle(self, item):
        self.count += 1
        if self.count == 4:
            print("in the fourth job", flush=True)
            time.sleep(600.0)
        return EvaluationSetup().build().handle(item)


def scored(count: int, template: str = "6x6-minimum", horizon: int = 12) -> list[ScoredTask]:
    """Return tasks of one template: they differ in numbers only, hence share a program."""
    specs = [tasks.get("quadratic").sample(template, seed, (horizon, horizon)) for seed in range(count)]
    return [ScoredTask(f"{template}-{i}", spec, 10.0, baselines.evaluation_seeds(spec, 0, 5)) for i, spec in enumerate(specs)]


def apart(count: int) -> list[ScoredTask]:
    """Return tasks that run one by one: their horizons differ."""
    return [replace(task, name=f"apart-{i}") for i in range(count) for task in scored(1, horizon=10 + i)]


def main(folder: str) -> None:
    desk = JobRunner(LocalPool(HangsInTheFourthJob()), Store(), "cpu", None, Store((Path(folder),)))
    desk.learner_curves(learner_jobs(OWN, groups(apart(6)), 5, "cpu"), "learners")
