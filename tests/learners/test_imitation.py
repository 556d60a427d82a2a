"""Imitation: no error where both learners are one, the runs of the one that leads, and a loss that any estimator can lower."""

import math

import pytest
import torch

from metaopt import inner, learners, tasks
from metaopt.estimators import ESTIMATORS
from metaopt.learners.imitation import ImitationLearner, PlainLoss, relative_error
from metaopt.learners.learner import Learner
from metaopt.tasks.source import TaskSource
from metaopt.tasks.task import Task

ADAM = learners.get("adam", lr=1e-2)


def problems(family: str, template: str, count: int = 2) -> list[Task]:
    source = TaskSource(tasks.get(family), template, (20, 20), 5, (PlainLoss(),))
    return [source.task(particle, 0) for particle in range(count)]


@pytest.mark.parametrize(("family", "template"), [("quadratic", "10x1-gradient"), ("digits_mlp", "16-tanh-b32")])
@pytest.mark.parametrize("rule", ["adam", "momentum"])
def test_the_error_is_zero_where_the_learner_is_the_one_that_leads(family: str, template: str, rule: str) -> None:
    learner = learners.get(rule, schedule="warmup_cosine", lr=1e-2)
    trace = inner.run(ImitationLearner(learner, learner), {}, problems(family, template), [1, 2], 12)
    assert not trace.loss.any()
    assert torch.equal(trace.normalised, trace.loss)


def test_a_hand_set_start_imitates_what_it_was_set_to() -> None:
    learner = learners.get("learnable_adam")
    trace = inner.run(
        ImitationLearner(learner, learners.get("adam", lr=1e-3)), learner.init_theta(0), problems("quadratic", "5x5-none"), [1, 2], 12
    )
    assert float(trace.loss.max()) < 1e-6


def test_the_run_is_that_of_the_one_that_leads_whatever_theta_is() -> None:
    learner = learners.get("lstm", hidden=3)
    batch = problems("digits_mlp", "16-tanh-b32")
    expected = inner.run(ADAM, {}, batch, [1, 2], 15).carry["params"]
    for seed in (0, 1):
        carry = inner.run(ImitationLearner(learner, ADAM), learner.init_theta(seed), batch, [1, 2], 15).carry
        for name, value in expected.items():
            assert torch.equal(carry["led"]["params"][name], value)
            assert torch.equal(carry["own"]["params"][name], value)


@pytest.mark.parametrize(("rate", "error"), [(0.0, 1.0), (5e-3, 0.25), (2e-2, 1.0), (1.0, 99.0**2)])
def test_the_error_is_relative_and_has_no_cap(rate: float, error: float) -> None:
    learner = ImitationLearner(learners.get("adam", lr=rate), ADAM)
    trace = inner.run(learner, {}, problems("quadratic", "10x1-none"), [1, 2], 5)
    torch.testing.assert_close(trace.normalised, torch.full((5, 2), error), rtol=1e-3, atol=1e-6)
    assert not trace.diverged.any()


def test_relative_error_by_hand() -> None:
    led = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor(4.0)}
    own = {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor(2.0)}
    assert float(relative_error(own, led)) == pytest.approx(5 / 25)
    still = {name: torch.zeros_like(value) for name, value in led.items()}
    assert float(relative_error(still, still)) == 0.0
    assert math.isfinite(float(relative_error({name: value * 1e-8 for name, value in led.items()}, still)))


@pytest.mark.parametrize("estimator", ["truncated_backprop", "pes"])
def test_estimators_lower_the_error(estimator: str) -> None:
    """Adam at a rate of 1e-3 learns the rate of the Adam that leads, 1e-2."""
    learner: Learner = ImitationLearner(learners.get("learnable_adam"), ADAM)
    source = TaskSource(tasks.get("quadratic"), "5x5-none", (20, 20), 5, (PlainLoss(),))
    options = {"window": 5} | ({"sigma": 0.1} if estimator == "pes" else {})
    made = ESTIMATORS[estimator](**options).build(learner, source, 2, 0)
    theta = learner.init_theta(0)
    found = []
    for step in range(40):
        estimate = made.estimate(theta, step)
        found.append(estimate.loss)
        theta = {**theta, "log_lr": theta["log_lr"] - 0.2 * torch.sign(estimate.grad["log_lr"]) * 0.95**step}
    assert found[0] > 0.5
    assert found[-1] < 0.2
    assert float(theta["log_lr"]) == pytest.approx(math.log(1e-2), abs=0.5)
