"""Learned schedules: their values, their derivatives, and on the noisy quadratic the optimum that direct planning finds."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from metaopt import inner, tasks
from metaopt.errors import ConfigError
from metaopt.estimators import ForwardMode, FullBackprop, flatten, unflatten
from metaopt.learners import GradientLearner
from metaopt.learners.hypergradients.schedule import LEARNABLE, ScheduledLearner, hyperparameters_at, scheduled_learner
from metaopt.learners.update_rules.classic import CLASSIC
from metaopt.tasks.oracles.noisy_quadratic import final_loss, greedy_schedule, moments, schedule_gradient, spectrum_problem
from tests.oracles.expected_quadratic import Runs

STEPS = 9
# Away from 0, so that every hyperparameter has a coordinate and matters.
POINT = {"lr": 0.05, "momentum": 0.8, "beta1": 0.85, "weight_decay": 0.1}
STABLE = {"adam": {"eps": 0.05}, "adamw": {"eps": 0.05}, "nadam": {"eps": 0.05}, "rmsprop": {"eps": 0.05, "alpha": 0.9}}


def learner_of(rule: str, shape: str = "linear", values: int = 3) -> ScheduledLearner:
    """A learner of all that the rule lets be learned."""
    learn = [name for name in LEARNABLE if name in CLASSIC[rule]().hyperparameters]
    return scheduled_learner(rule, learn=learn, values=values, shape=shape, **{name: POINT[name] for name in learn}, **STABLE.get(rule, {}))


def bent(learner: ScheduledLearner) -> dict[str, torch.Tensor]:
    """Theta in float64 with another value at every knot."""
    return {name: value.double() + torch.linspace(-0.4, 0.6, len(value)).double() for name, value in learner.init_theta(0).items()}


def task(steps: int = STEPS):
    family = tasks.get("quadratic")
    return family.build(family.sample("8x4-minimum", 1, (steps, steps))).to(dtype=torch.float64)


def rates(theta: dict[str, torch.Tensor], shape: str, horizon: int, count: int | None = None) -> list[float]:
    end = torch.tensor(float(horizon), dtype=torch.float64)
    return [float(hyperparameters_at(theta, shape, torch.tensor(t), end)["lr"]) for t in range(count or horizon)]


def test_values_between_knots_and_in_segments() -> None:
    theta = {"lr": torch.log(torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64))}
    assert rates(theta, "linear", 4, 7) == pytest.approx([1.0, 2.0, 4.0, 8**0.5, 2.0, 2.0, 2.0], rel=1e-12)
    assert rates(theta, "constant", 6, 8) == pytest.approx([1.0, 1.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0], rel=1e-12)
    assert rates({"lr": torch.zeros(1, dtype=torch.float64)}, "linear", 3, 5) == [1.0] * 5


@given(count=st.integers(1, 40), horizon=st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_segments_begin_where_whole_numbers_say(count: int, horizon: int) -> None:
    theta = {"lr": torch.arange(count, dtype=torch.float32)}
    end = torch.tensor(float(horizon))  # float32, as in meta-training
    for t in {0, horizon // 3, horizon // 2, horizon - 1}:
        got = hyperparameters_at(theta, "constant", torch.tensor(t), end)["lr"]
        assert float(got.log()) == pytest.approx(t * count // horizon, abs=1e-4)


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=5))
@settings(max_examples=50, deadline=None)
def test_no_theta_means_a_value_out_of_range(knots: list[float]) -> None:
    theta = {name: torch.tensor(knots) for name in LEARNABLE}  # float32
    for t in range(4):
        for name, value in hyperparameters_at(theta, "linear", torch.tensor(t), torch.tensor(3.0)).items():
            assert 0.0 < float(value) < (1.0 if LEARNABLE[name] == "logit" else math.inf), name


@pytest.mark.parametrize("rule", CLASSIC)
@pytest.mark.parametrize("shape", ["linear", "constant"])
def test_the_start_is_the_rule_itself(rule: str, shape: str) -> None:
    learner = learner_of(rule, shape)
    theta = {name: value.double() for name, value in learner.init_theta(0).items()}
    assert [tuple(value.shape) for value in theta.values()] == [(3,)] * len(learner.learn)
    plain = inner.run(GradientLearner(learner.rule), {}, [task()], [3], STEPS)
    learned = inner.run(learner, theta, [task()], [3], STEPS)
    torch.testing.assert_close(learned.loss, plain.loss, rtol=1e-5, atol=1e-9)  # theta starts in float32


def test_particles_with_thetas_of_their_own_run_as_if_alone() -> None:
    learner = learner_of("adamw")
    one, other = bent(learner), {name: value - 0.3 for name, value in bent(learner).items()}
    stacked = {name: torch.stack([one[name], other[name]]) for name in one}
    both = inner.run(learner, stacked, [task(), task()], [3, 4], STEPS, theta_stacked=True)
    for i, (theta, seed) in enumerate(((one, 3), (other, 4))):
        torch.testing.assert_close(both.loss[:, i], inner.run(learner, theta, [task()], [seed], STEPS).loss[:, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
@pytest.mark.parametrize("shape", ["linear", "constant"])
def test_compiled_steps_are_the_same(shape: str) -> None:
    learner = learner_of("adamw", shape)
    theta = bent(learner)
    eager, compiled = (inner.run(learner, theta, [task()] * 2, [3, 4], STEPS, compile=how) for how in (False, True))
    torch.testing.assert_close(compiled.loss, eager.loss, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", CLASSIC)
@pytest.mark.parametrize("shape", ["linear", "constant"])
def test_derivatives_equal_central_differences(rule: str, shape: str) -> None:
    learner = learner_of(rule, shape)

    theta = {name: value.requires_grad_() for name, value in bent(learner).items()}
    inner.run(learner, theta, [task()], [3], STEPS).loss[-1, 0].backward()
    at, delta = flatten({name: value.detach() for name, value in theta.items()}), 1e-5
    moved = torch.cat([at + sign * delta * torch.eye(len(at), dtype=torch.float64) for sign in (1, -1)])
    both = inner.run(learner, unflatten(moved, theta), [task()] * len(moved), [3] * len(moved), STEPS, theta_stacked=True).loss[-1]
    exact = flatten({name: value.grad for name, value in theta.items() if value.grad is not None})
    torch.testing.assert_close(exact, (both[: len(at)] - both[len(at) :]) / (2 * delta), rtol=1e-5, atol=1e-9)
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in theta.values())


@pytest.mark.parametrize("objective", ["mean", "last"])
@pytest.mark.parametrize(("rule", "shape"), [("momentum", "constant"), ("adamw", "linear"), ("rmsprop", "constant")])
def test_forward_differentiation_with_sharing_equals_reverse(rule: str, shape: str, objective: str) -> None:
    learner = learner_of(rule, shape)
    problem = spectrum_problem(np.logspace(0, -2, 6), 4)
    theta, runs = bent(learner), Runs(problem, STEPS)
    reverse = FullBackprop(objective=objective).build(learner, runs, 1, 0).estimate(theta, 0)
    forward = ForwardMode(window=STEPS, objective=objective).build(learner, runs, 1, 0).estimate(theta, 0)
    torch.testing.assert_close(flatten(forward.grad), flatten(reverse.grad), rtol=1e-9, atol=1e-14)
    assert forward.loss == pytest.approx(reverse.loss, rel=1e-12)


# -- the noisy quadratic: T steps, of which the last loss sees T - 1

PROBLEM, HORIZON, VALUES = spectrum_problem(np.logspace(0, -2, 12), 3), 14, 3


def planned(coordinates: np.ndarray, shape: str) -> tuple[float, np.ndarray]:
    """Return the loss after T - 1 steps and its exact derivative by the coordinates, through numpy's adjoint recursion."""
    t = np.arange(HORIZON - 1)[:, None]
    if shape == "constant":
        shares = (t * VALUES // HORIZON == np.arange(VALUES)).astype(float)
    else:
        shares = np.clip(1 - np.abs(t * (VALUES - 1) / HORIZON - np.arange(VALUES)), 0, 1)
    steps = np.exp(shares @ coordinates)
    return final_loss(PROBLEM, steps), shares.T @ (schedule_gradient(PROBLEM, steps) * steps)


@pytest.mark.parametrize("shape", ["linear", "constant"])
def test_gradients_on_the_noisy_quadratic_are_those_of_its_recursion(shape: str) -> None:
    learner = scheduled_learner("sgd", lr=0.3, values=VALUES, shape=shape)
    theta = {"lr": torch.tensor([-1.0, -0.5, -1.5], dtype=torch.float64)}
    loss, gradient = planned(theta["lr"].numpy(), shape)
    trace = inner.run(learner, theta, [Runs(PROBLEM, HORIZON).task(0, 0)], [0], HORIZON)
    expected = moments(PROBLEM, np.array(rates(theta, shape, HORIZON)))
    np.testing.assert_allclose(trace.loss[:, 0], 0.5 * (PROBLEM.curvature * expected[:-1]).sum(1), rtol=1e-13)
    for recipe in (ForwardMode(window=HORIZON, objective="last"), FullBackprop(objective="last")):
        found = recipe.build(learner, Runs(PROBLEM, HORIZON), 1, 0).estimate(theta, 0)
        assert found.loss == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(flatten(found.grad), gradient, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("shape", "recipe"), [("linear", FullBackprop(objective="last")), ("constant", ForwardMode(HORIZON, objective="last"))]
)
def test_a_learned_schedule_reaches_the_planned_one_and_beats_greedy(shape: str, recipe) -> None:
    learner = scheduled_learner("sgd", lr=0.1, values=VALUES, shape=shape)
    theta = {name: value.double() for name, value in learner.init_theta(0).items()}
    estimator = recipe.build(learner, Runs(PROBLEM, HORIZON), 1, 0)
    coordinates = flatten(theta).clone().requires_grad_()
    outer = torch.optim.Adam([coordinates], lr=0.4, betas=(0.7, 0.9))
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(outer, 30)
    for k in range(30):
        coordinates.grad = flatten(estimator.estimate(unflatten(coordinates.detach(), theta), k).grad)
        outer.step()
        decay.step()
    learned = planned(coordinates.detach().numpy(), shape)[0]
    starts = [np.full(VALUES, math.log(rate)) for rate in (0.1, 0.5, 1.0)]
    best = min(minimize(planned, start, args=(shape,), jac=True, method="BFGS").fun for start in starts)
    greedy = final_loss(PROBLEM, greedy_schedule(PROBLEM, HORIZON - 1))
    start = planned(flatten(theta).numpy(), shape)[0]
    assert best * (1 - 1e-9) <= learned < 1.01 * best
    assert learned < 0.9 * greedy
    assert learned < 0.5 * start


def test_options_of_a_card_build_it_again() -> None:
    learner = scheduled_learner("momentum", learn=["lr", "momentum"], values=5, shape="constant", lr=0.2)
    assert learner == ScheduledLearner(("lr", "momentum"), 5, "constant", rule=CLASSIC["momentum"](lr=0.2))
    assert hash(learner) == hash(dataclasses.replace(learner))
    assert [float(learner.init_theta(0)[name][0]) for name in learner.learn] == pytest.approx([math.log(0.2), math.log(9.0)], rel=1e-6)


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("adamv", {}, r"a schedule cannot be learned for rule 'adamv'; did you mean 'adam'\? known: sgd, momentum"),
        ("muon", {}, "a schedule cannot be learned for rule 'muon'"),
        ("adamw", {"learn": ["lr", "momentum"]}, "learn names 'momentum', which adamw has no schedule for; known: lr, beta1, weight_decay"),
        ("adamw", {"learn": ["beta1"]}, "learn must name lr, and nothing twice, got beta1"),
        ("adamw", {"learn": ["lr", "lr"]}, "learn must name lr, and nothing twice, got lr, lr"),
        (
            "momentum",
            {"learn": ["lr", "weight_decay"]},
            r"weight_decay of momentum starts at 0, and is learned within \(0, inf\); set weight_",
        ),
        (
            "rmsprop",
            {"learn": ["lr", "momentum"]},
            r"momentum of rmsprop starts at 0, and is learned within \(0, 1\); set momentum to a value",
        ),
        ("sgd", {"values": 0}, "option values of update rule sgd: Input should be greater than or equal to 1, got 0"),
        ("sgd", {"shape": "cubic"}, "option shape of update rule sgd: Input should be 'linear' or 'constant', got 'cubic'"),
        ("sgd", {"momentum": 0.9}, "update rule sgd has no option 'momentum'"),
    ],
)
def test_bad_options_are_one_line(rule: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        scheduled_learner(rule, **options)


def test_a_learner_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="values must be >= 1 and <= 1000, got 0"):
        ScheduledLearner(values=0, rule=CLASSIC["sgd"]())
    with pytest.raises(ConfigError, match="shape must be one of linear, constant, got 'cubic'"):
        ScheduledLearner(shape="cubic", rule=CLASSIC["sgd"]())  # type: ignore[arg-type]
