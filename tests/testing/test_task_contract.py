"""Bundled tasks keep the contract, and a task that breaks a clause is told which."""

from dataclasses import dataclass, replace

import pytest
import torch

from metaopt import tasks
from metaopt.tasks.families.quadratic import Quadratic
from metaopt.testing import TASK_CLAUSES, ContractError, check_task

TEMPLATES = [(name, tasks.get(name).templates("meta_test")[0]) for name in ("quadratic", "digits_mlp", "digits_conv")]


@pytest.mark.parametrize(("name", "template"), [*TEMPLATES, ("quadratic", "8x4-minimum"), ("digits_mlp", "linear-relu-b64")])
def test_bundled_tasks_keep_every_clause(name: str, template: str) -> None:
    family = tasks.get(name)
    task = family.build(family.sample(template, 0, (50, 50)))
    assert check_task(task) == tuple(TASK_CLAUSES)
    if name == "quadratic":
        check_task(tasks.reparametrise(task, 0, (0.5, 2.0)))


GENERATOR = torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class Global(Quadratic):
    def batch(self, numbers, shared, key, step):
        return {"noise": torch.rand(self.rows)}


@dataclass(frozen=True)
class Impure(Quadratic):
    def batch(self, numbers, shared, key, step):
        return {"noise": torch.rand(self.rows, generator=GENERATOR)}


@dataclass(frozen=True)
class Rooted(Quadratic):
    def loss(self, numbers, params, batch):
        return super().loss(numbers, params, batch) + (0.0 * params["x"]).sqrt().sum()


@dataclass(frozen=True)
class Raw(Quadratic):
    def normalise(self, numbers, raw):
        return 100.0 * raw


@dataclass(frozen=True)
class Single(Quadratic):
    def loss(self, numbers, params, batch):
        return super().loss(numbers, params, batch).float()


@dataclass(frozen=True)
class Constant(Quadratic):
    def loss(self, numbers, params, batch):
        return super().loss(numbers, params, batch).detach() * 0.0 + numbers["initial_loss"]


@pytest.mark.parametrize(
    ("program", "clause"),
    [
        (Global, "isolated"),
        (Impure, "pure"),
        (Rooted, "differentiable"),
        (Raw, "normalised"),
        (Single, "precision"),
        (Constant, "learnable"),
    ],
)
def test_a_broken_clause_is_named(program: type[Quadratic], clause: str) -> None:
    family = tasks.get("quadratic")
    good = family.build(family.sample("10x1-none", 0, (50, 50)))
    with pytest.raises(ContractError) as caught:
        check_task(replace(good, program=program(10, 1, "none")))
    assert caught.value.clause == clause
