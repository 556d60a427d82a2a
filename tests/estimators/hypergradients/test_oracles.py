"""Closed forms with all their digits: a deterministic quadratic and a ridge regression."""

import pytest
import torch
from torch import Tensor

from metaopt.estimators.hypergradients import DiscountedForward, ForwardShared, Implicit, OneStep, Unrolled, gradient_step, hypergradient
from metaopt.learners.update_rules import get_rule

CURVATURE = torch.tensor([1.0, 0.3, 0.1], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
RATE = torch.tensor(0.1, dtype=torch.float64)
STEPS = 5
LOSS, DERIVATIVE, GREEDY, MARTHE = 0.6280984721245669, -3.3169373161717632, -0.6633874632343526, -2.7166380006909976


def quadratic(params, batch=None):
    return 0.5 * (CURVATURE * params["x"] ** 2).sum()


def outer(state):
    return quadratic(state["params"])


def quadratic_run(rule="sgd"):
    inner = gradient_step(quadratic, rule)
    return inner, inner.init({"x": START}), range(STEPS), outer


def of_rate(method):
    return float(hypergradient(method, *quadratic_run(), {"lr": RATE})["lr"])


def test_the_quadratic_itself():
    inner, state, batches, _ = quadratic_run()
    for t in batches:
        state = inner(state, t, {"lr": RATE})
    assert float(outer(state)) == pytest.approx(LOSS, rel=1e-15)
    closed = -STEPS * (CURVATURE**2 * (1 - RATE * CURVATURE) ** (2 * STEPS - 1) * START**2).sum()
    assert float(closed) == pytest.approx(DERIVATIVE, rel=1e-15)


@pytest.mark.parametrize("method", ["unrolled", "discounted_forward", Unrolled(checkpoint_steps=1), Unrolled(backend="higher")])
def test_exact_methods_on_the_quadratic(method):
    assert of_rate(method) == pytest.approx(DERIVATIVE, rel=1e-14)


@pytest.mark.parametrize("method", ["one_step", OneStep(), DiscountedForward(0.0), Unrolled(1)])
def test_greedy_methods_on_the_quadratic(method):
    assert of_rate(method) == pytest.approx(GREEDY, rel=1e-14)


def test_marthe_lies_between():
    assert of_rate(DiscountedForward(0.9)) == pytest.approx(MARTHE, rel=1e-14)


def test_a_schedule_on_the_quadratic():
    """The derivative in the rate of step t is the same for all t here, since the steps commute."""
    found = hypergradient(ForwardShared(STEPS), *quadratic_run(), {"lr": RATE.expand(STEPS)})["lr"]
    torch.testing.assert_close(found, torch.full_like(found, DERIVATIVE / STEPS), rtol=1e-14, atol=0)


def test_the_hypergradient_at_a_rate_of_zero_is_that_of_the_start():
    """Schedules that are learned from nothing begin there; the derivative must not be lost in a branch."""
    found = hypergradient("unrolled", *quadratic_run(), {"lr": torch.zeros((), dtype=torch.float64)})["lr"]
    assert float(found) == pytest.approx(float(-STEPS * (CURVATURE**2 * START**2).sum()), rel=1e-14)


HESSIAN = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
LINEAR = torch.tensor([1.0, -1.0], dtype=torch.float64)
RIDGE = torch.tensor(0.3, dtype=torch.float64)
EXACT = -3.564271416643301


def ridge_loss(w: Tensor, ridge: Tensor | float) -> Tensor:
    return 0.5 * w @ HESSIAN @ w - LINEAR @ w + 0.5 * ridge * w @ w


def validation(w: Tensor) -> Tensor:
    return 0.5 * w @ (torch.tensor([1.0, 3.0], dtype=torch.float64) * w) - 0.5 * w.sum()


def minimum(ridge: Tensor) -> Tensor:
    return torch.linalg.solve(HESSIAN + ridge * torch.eye(2, dtype=torch.float64), LINEAR)


def descend(rate):
    return lambda w, batch, hyper: w - rate * torch.func.grad(ridge_loss)(w, hyper["ridge"])


def of_ridge(method, rate=0.4, start=None, steps=1):
    start = minimum(RIDGE) if start is None else start
    return float(hypergradient(method, descend(rate), start, range(steps), validation, {"ridge": RIDGE})["ridge"])


def test_the_ridge_itself():
    assert float(torch.func.grad(lambda ridge: validation(minimum(ridge)))(RIDGE)) == pytest.approx(EXACT, rel=1e-14)


@pytest.mark.parametrize(("terms", "expected"), [(1, -1.498747935425436), (5, -3.357011385156376), (20, -3.5642340640060763)])
def test_the_neumann_series_on_the_ridge(terms, expected):
    assert of_ridge(Implicit(steps=terms)) == pytest.approx(expected, rel=1e-14)
    # The same numbers with the step size in the solver, and from differentiating as many steps at the optimum.
    assert of_ridge(Implicit(steps=terms, step_size=0.4), rate=1.0) == pytest.approx(expected, rel=1e-13)
    assert of_ridge("unrolled", steps=terms) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("method", [Implicit("cg", steps=2), Implicit("cg", steps=50), Implicit(steps=300)])
def test_both_solvers_end_at_the_exact_number(method):
    assert of_ridge(method) == pytest.approx(EXACT, rel=1e-12)


def test_the_run_leads_to_the_fixed_point():
    far = torch.tensor([5.0, 5.0], dtype=torch.float64)
    assert of_ridge(Implicit("cg", steps=2), start=far, steps=300) == pytest.approx(EXACT, rel=1e-12)
    assert abs(of_ridge(Implicit("cg", steps=2), start=far, steps=2) / EXACT - 1) > 1e-2


@pytest.mark.parametrize("solver", ["neumann", "cg"])
def test_damping_is_that_of_the_linear_system(solver):
    damping, rate = 0.1, 0.4
    system = rate * (HESSIAN + RIDGE * torch.eye(2, dtype=torch.float64)) + damping * torch.eye(2, dtype=torch.float64)
    w = minimum(RIDGE)
    expected = -rate * w @ torch.linalg.solve(system, torch.func.grad(validation)(w))
    assert of_ridge(Implicit(solver, steps=300, damping=damping)) == pytest.approx(float(expected), rel=1e-12)


def test_weight_decay_of_a_rule_is_a_ridge():
    inner = gradient_step(lambda params, batch: ridge_loss(params["w"], 0.0), "sgd")
    state = inner.init({"w": minimum(RIDGE)})
    values = {"weight_decay": RIDGE}
    # lr of the rule is 0.01: the contraction is slow, conjugate gradients do not care.
    found = hypergradient(Implicit("cg", steps=2), inner, state, [0], lambda end: validation(end["params"]["w"]), values)
    assert float(found["weight_decay"]) == pytest.approx(EXACT, rel=1e-11)


def test_accumulators_belong_to_the_fixed_point():
    """Heavy ball has the fixed point of gradient descent, in a larger state whose derivative is not symmetric."""
    inner = gradient_step(lambda params, batch: ridge_loss(params["w"], 0.0), get_rule("momentum", lr=0.3, momentum=0.4))
    state = inner.init({"w": minimum(RIDGE)})
    values = {"weight_decay": RIDGE}
    found = hypergradient(Implicit(steps=200), inner, state, [0], lambda end: validation(end["params"]["w"]), values)
    assert float(found["weight_decay"]) == pytest.approx(EXACT, rel=1e-9)


def test_a_scalar_contraction():
    """x = a x + b ends at b / (1 - a): the series is geometric."""
    values = {"b": torch.tensor(0.3, dtype=torch.float64)}
    problem = (lambda x, batch, hyper: 0.5 * x + hyper["b"], torch.tensor(0.6, dtype=torch.float64), [0], lambda x: x.square(), values)
    for terms in (1, 2, 5):
        expected = 2 * 0.6 * (1 - 0.5**terms) / (1 - 0.5)
        assert float(hypergradient(Implicit(steps=terms), *problem)["b"]) == pytest.approx(expected, rel=1e-14)
    assert float(hypergradient(Implicit("cg"), *problem)["b"]) == pytest.approx(2.4, rel=1e-14)
