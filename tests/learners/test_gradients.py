"""Certification: derivatives through unrolled inner training equal central differences in float64, for every hyperparameter."""

import pytest
import torch

from metaopt import inner, learners, tasks
from metaopt.estimators import flatten, unflatten
from metaopt.learners.update_rules import get_rule
from metaopt.learners.update_rules.classic import CLASSIC, one_minus_power

STEPS = 8
# Away from 0 and from torch's tiny epsilons, so that every hyperparameter matters.
POINT = {
    "lr": 0.05, "momentum": 0.8, "weight_decay": 0.1, "beta1": 0.85, "beta2": 0.95, "eps": 0.05, "momentum_decay": 0.02, "alpha": 0.9,
}  # fmt: skip


def task(template: str = "8x4-minimum"):
    family = tasks.get("quadratic")
    return family.build(family.sample(template, 1, (STEPS, STEPS))).to(dtype=torch.float64)


def final_loss(learner, theta, bowl):
    """Training loss of the step after STEPS updates."""
    return inner.run(learner, theta, [bowl], [3], STEPS + 1).loss[-1, 0]


def certify(learner, theta, bowl, delta: float = 1e-5, rtol: float = 1e-6) -> dict[str, float]:
    """Compare d(final loss)/d(entry) with central differences for each 0-d entry of theta."""
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    loss = final_loss(learner, leaves, bowl)
    grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    for name, value in theta.items():
        high, low = (final_loss(learner, {**theta, name: value + sign * delta}, bowl) for sign in (1, -1))
        difference = float((high - low) / (2 * delta))
        assert float(grads[name]) == pytest.approx(difference, rel=rtol, abs=1e-9), name
    return {name: float(grad) for name, grad in grads.items()}


@pytest.mark.parametrize("schedule", ["constant", "warmup_cosine"])
@pytest.mark.parametrize("name", list(CLASSIC))
def test_classic_rules_in_every_hyperparameter(name: str, schedule: str) -> None:
    hyperparameters = CLASSIC[name]().hyperparameters
    theta = {key: torch.tensor(POINT[key], dtype=torch.float64) for key in hyperparameters}
    grads = certify(learners.get(name, schedule=schedule), theta, task())
    assert all(grads.values())  # the test would say nothing about one that has no effect


def test_theta_takes_precedence_over_the_rule() -> None:
    by_theta = final_loss(learners.get("adam"), {"lr": torch.tensor(0.03, dtype=torch.float64)}, task())
    by_rule = final_loss(learners.get("adam", lr=0.03), {}, task())
    torch.testing.assert_close(by_theta, by_rule, rtol=1e-14, atol=0)
    assert not torch.equal(by_theta, final_loss(learners.get("adam"), {}, task()))


def test_learnable_adam_in_every_meta_parameter() -> None:
    theta = {"log_lr": -3.0, "log_one_minus_beta1": -1.7, "log_one_minus_beta2": -2.5, "log_eps": -3.0}
    grads = certify(
        learners.get("learnable_adam"), {name: torch.tensor(value, dtype=torch.float64) for name, value in theta.items()}, task()
    )
    assert all(grads.values())


@pytest.mark.parametrize("name", ["mlp", "celo2_base", "small_fc", "celo2", "nn_adam", "star"])
def test_learned_rules_along_random_directions(name: str) -> None:
    learner = learners.get(name, start="random")
    theta = {key: value.double() for key, value in learner.init_theta(4).items()}
    center = flatten(theta).requires_grad_()
    (grad,) = torch.autograd.grad(final_loss(learner, unflatten(center, theta), task()), center)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(center.shape, generator=generator, dtype=torch.float64)
        high, low = (final_loss(learner, unflatten(center.detach() + sign * 1e-6 * direction, theta), task()) for sign in (1, -1))
        assert float(grad @ direction) == pytest.approx(float((high - low) / 2e-6), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "rmsprop"])
def test_weights_without_gradient_do_not_poison_derivatives(name: str) -> None:
    rule = get_rule(name)
    theta = {"lr": torch.tensor(0.1, requires_grad=True), "eps": torch.tensor(1e-8, requires_grad=True)}
    param, grad = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0], requires_grad=True)
    direction, _ = rule.update(theta, param, grad, rule.init_state(param), torch.tensor(0))
    derivatives = torch.autograd.grad((theta["lr"] * direction).sum(), [*theta.values(), grad])
    assert all(torch.isfinite(value).all() for value in derivatives)


def test_one_minus_power_does_not_cancel() -> None:
    count, like = torch.tensor(1), torch.zeros((), dtype=torch.float32)
    assert float(one_minus_power(1 - 1e-7, count, like)) == pytest.approx(1e-7, rel=1e-5)
    assert float(one_minus_power(0.0, count, like)) == 1.0
    assert float(one_minus_power(torch.tensor(0.5), torch.tensor(3), like)) == pytest.approx(0.875, rel=1e-6)
