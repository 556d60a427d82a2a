"""Every bundled estimator keeps the contract under all of its options, and one that breaks a clause is told which."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from metaopt.estimators import ESTIMATORS, NRES
from metaopt.learners import GradientLearner
from metaopt.learners.update_rules import get_rule
from metaopt.testing import ESTIMATOR_CLAUSES, ContractError, check_estimator
from tests.estimators.cases import CASES


@pytest.mark.parametrize("case", CASES)
def test_bundled_estimators_keep_every_clause(case: str) -> None:
    assert check_estimator(CASES[case]) == tuple(ESTIMATOR_CLAUSES)


def test_every_bundled_estimator_is_among_the_cases() -> None:
    assert {recipe.name for recipe in CASES.values()} == set(ESTIMATORS)


@pytest.mark.parametrize("name", ["truncated_backprop", "full_backprop"])
def test_the_second_backend_keeps_every_clause(name: str) -> None:
    momentum = GradientLearner(get_rule("momentum"))
    theta = {"lr": torch.tensor(0.02), "momentum": torch.tensor(0.8)}
    assert check_estimator(ESTIMATORS[name](window=3, backend="higher"), momentum, theta) == tuple(ESTIMATOR_CLAUSES)


@dataclass(frozen=True)
class Honest:
    """A recipe that passes on what another estimator does, for others to break."""

    name: ClassVar[str] = "honest"
    window: int = 3

    def build(self, learner, episodes, pairs, seed, device="cpu", compiled=False):
        return self.around(NRES(self.window).build(learner, episodes, pairs, seed))

    def around(self, inner):
        return inner


class Wrapped:
    def __init__(self, inner):
        self.inner, self.kept = inner, {}

    def estimate(self, theta, outer_step):
        return self.inner.estimate(theta, outer_step)

    def state(self):
        return self.inner.state()

    def load(self, state):
        self.inner.load(state)


def broken(**methods):
    """Return a recipe whose estimator has some methods replaced."""
    estimator = type("Broken", (Wrapped,), methods)
    return type("BrokenRecipe", (Honest,), {"around": lambda self, inner: estimator(inner)})()


def scaled(factor):
    def estimate(self, theta, outer_step):
        got = self.inner.estimate(theta, outer_step)
        return replace(got, grad={name: factor(name, grad) for name, grad in got.grad.items()})

    return estimate


def writing(self, theta, outer_step):
    got = self.inner.estimate(theta, outer_step)
    next(iter(theta.values())).add_(1.0)
    return got


def counting_itself(self, theta, outer_step):
    self.kept["calls"] = self.kept.get("calls", 0) + 1
    return scaled(lambda name, grad: grad * self.kept["calls"])(self, theta, outer_step)


def aliasing(self):
    self.kept.setdefault("calls", torch.zeros(()))
    return {**self.inner.state(), "calls": self.kept["calls"]}


def counted(self, theta, outer_step):
    self.kept.setdefault("calls", torch.zeros(())).add_(1)
    return scaled(lambda name, grad: grad * self.kept["calls"])(self, theta, outer_step)


def loading(self, state):
    self.kept["calls"] = state["calls"].clone()
    self.inner.load(state)


def standing(self, theta, outer_step):
    state = self.inner.state()
    got = self.inner.estimate(theta, outer_step)
    self.inner.load(state)
    return got


def miscounting(self, theta, outer_step):
    return replace(self.inner.estimate(theta, outer_step), inner_steps=1)


def dicing(name, grad):
    return grad * torch.rand(())


@pytest.mark.parametrize(
    ("clause", "recipe"),
    [
        ("shapes", broken(estimate=scaled(lambda name, grad: grad.reshape(1, -1)))),
        ("shapes", broken(estimate=scaled(lambda name, grad: grad.double()))),
        ("shapes", broken(estimate=scaled(lambda name, grad: grad / 0))),
        ("counts", broken(estimate=miscounting)),
        ("pure", broken(estimate=scaled(dicing))),
        ("pure", broken(estimate=standing)),
        ("harmless", broken(estimate=writing)),
        ("resumes", broken(estimate=counting_itself)),
        ("resumes", broken(estimate=counted, state=aliasing, load=loading)),
        ("resumes", broken(state=lambda self: {"self": self})),
    ],
)
def test_a_broken_estimator_is_told_which_clause(clause: str, recipe: Honest) -> None:
    with pytest.raises(ContractError) as caught:
        check_estimator(recipe)
    assert caught.value.clause == clause


def test_an_honest_wrapper_passes() -> None:
    assert check_estimator(broken()) == tuple(ESTIMATOR_CLAUSES)


def test_a_recipe_must_be_a_dataclass_with_a_window() -> None:
    with pytest.raises(ContractError, match="static"):
        check_estimator(Honest(window=0))
    with pytest.raises(ContractError, match="no dataclass"):
        check_estimator(type("Plain", (), {"name": "plain", "window": 1})())
