"""`higher` as a second backend: equal to ours for SGD and momentum, to its own formula for Adam, and refused where it is wrong."""

import math
import subprocess
import sys
import warnings

import pytest
import torch

from metaopt import learners
from metaopt.errors import ConfigError
from metaopt.estimators import ESTIMATORS, flatten, higher_backend
from metaopt.learners import GradientLearner
from metaopt.learners.update_rules import get_rule
from metaopt.seeds import fold_in
from metaopt.tasks import stack_tasks
from tests.estimators.float64 import source

HORIZON = 9
THETAS = {
    "sgd": {"lr": 0.05, "weight_decay": 0.01},
    "momentum": {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.01},
    "adam": {"lr": 0.05, "beta1": 0.9, "eps": 1e-3, "weight_decay": 0.01},
}


def theta_of(name: str, **changes: float) -> dict[str, torch.Tensor]:
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in (THETAS[name] | changes).items()}


def estimates(name: str, estimator: str, backend: str, theta, schedule: str = "constant", count: int = 4, **options: object):
    learner = learners.get(name, schedule=schedule)
    built = ESTIMATORS[estimator](window=4, backend=backend, **options).build(learner, source(HORIZON), 2, 0)
    return [built.estimate(theta, k) for k in range(count)]


@pytest.mark.parametrize("objective", ["mean", "last"])
@pytest.mark.parametrize("estimator", ["truncated_backprop", "full_backprop"])
@pytest.mark.parametrize("name", ["sgd", "momentum"])
def test_it_equals_ours(name: str, estimator: str, objective: str) -> None:
    # Four windows of 4 and a horizon of 9: states persist, and episodes begin inside windows.
    theta = theta_of(name)
    for one, two in zip(
        *(estimates(name, estimator, b, theta, "warmup_cosine", objective=objective) for b in ("own", "higher")), strict=True
    ):
        torch.testing.assert_close(flatten(one.grad), flatten(two.grad), rtol=1e-10, atol=1e-10)
        assert one.loss == pytest.approx(two.loss, rel=1e-12)
        assert one.inner_steps == two.inner_steps
    assert float(flatten(one.grad).abs().min()) > 1e-4  # every entry has something to agree on


def higher_adam(task, key, theta, beta2: float) -> torch.Tensor:
    """Mean normalised loss of one run under the formula of `higher`'s Adam: eps is added before the bias correction of v."""
    x, m, v, losses = task.init(fold_in(key, 0))["x"].requires_grad_(), 0.0, 0.0, []
    for t in range(HORIZON):
        loss = task.loss({"x": x}, task.batch(fold_in(key, 1), torch.tensor(t)))
        losses.append(task.normalise(loss))
        (grad,) = torch.autograd.grad(loss, x, create_graph=True)
        grad = grad + theta["weight_decay"] * x
        m, v = theta["beta1"] * m + (1 - theta["beta1"]) * grad, beta2 * v + (1 - beta2) * grad**2
        size = theta["lr"] * math.sqrt(1 - beta2 ** (t + 1)) / (1 - theta["beta1"] ** (t + 1))
        x = x - size * m / (v.sqrt() + theta["eps"])
    return torch.stack(losses).mean()


def exact_adam(theta, beta2: float = 0.999) -> torch.Tensor:
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    runs = source(HORIZON)
    losses = [higher_adam(runs.task(p, 0), torch.tensor(runs.run_seed(p, 0)), leaves, beta2) for p in range(4)]
    return torch.stack(torch.autograd.grad(torch.stack(losses).mean(), list(leaves.values())))


@pytest.mark.parametrize("estimator", ["truncated_backprop", "full_backprop"])
def test_its_adam_is_its_own_formula(estimator: str) -> None:
    theta = theta_of("adam")
    (got,) = estimates("adam", estimator, "higher", theta, count=1) if estimator == "full_backprop" else [whole_window(theta)]
    torch.testing.assert_close(flatten(got.grad), exact_adam(theta), rtol=1e-10, atol=1e-10)


def whole_window(theta):
    built = ESTIMATORS["truncated_backprop"](window=HORIZON, backend="higher").build(learners.get("adam"), source(HORIZON), 2, 0)
    return built.estimate(theta, 0)


def test_its_adam_is_not_torch_s() -> None:
    theta = theta_of("adam")
    ours, theirs = (flatten(estimates("adam", "full_backprop", backend, theta, count=1)[0].grad) for backend in ("own", "higher"))
    assert float((ours - theirs).abs().max()) > 0.1 * float(ours.abs().max())
    # Without an epsilon to speak of the two formulas are one.
    tiny = theta_of("adam", eps=1e-12)
    ours, theirs = (flatten(estimates("adam", "full_backprop", backend, tiny, count=1)[0].grad) for backend in ("own", "higher"))
    keep = torch.tensor([True, True, False, True])  # the derivative for eps itself differs by the bias correction
    torch.testing.assert_close(ours[keep], theirs[keep], rtol=1e-6, atol=1e-9)


def unchecked(name: str, theta, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(higher_backend, "check_theta", lambda rule, theta: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the number that `higher` makes of a tensor with a graph
        (got,) = estimates(name, "full_backprop", "higher", theta, count=1)
    return got


def slope(name: str, theta, entry: str, monkeypatch: pytest.MonkeyPatch, h: float = 1e-6) -> float:
    """Central difference of the loss that `higher` itself reports."""
    low, high = ({**theta, entry: theta[entry] + sign * h} for sign in (-1, 1))
    return (unchecked(name, high, monkeypatch).loss - unchecked(name, low, monkeypatch).loss) / (2 * h)


@pytest.mark.parametrize(("name", "entry"), [(name, entry) for name, entries in higher_backend.RULES.items() for entry in entries])
def test_what_it_differentiates_is_right(name: str, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theta = theta_of(name)
    got = float(unchecked(name, theta, monkeypatch).grad[entry])
    assert got == pytest.approx(slope(name, theta, entry, monkeypatch), rel=1e-5, abs=1e-8)


def test_the_derivative_for_beta2_is_wrong_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    theta = theta_of("adam", beta2=0.99)
    with pytest.raises(ConfigError, match="wrong derivative for adam's beta2"):
        estimates("adam", "full_backprop", "higher", theta, count=1)
    got, want = float(unchecked("adam", theta, monkeypatch).grad["beta2"]), slope("adam", theta, "beta2", monkeypatch)
    assert abs(got - want) > 0.5 * abs(want)
    own = estimates("adam", "full_backprop", "own", theta, count=1)[0]
    assert torch.isfinite(own.grad["beta2"])  # ours has no such restriction


@pytest.mark.parametrize(("name", "entry"), [("momentum", "momentum"), ("sgd", "weight_decay"), ("adam", "weight_decay")])
def test_a_derivative_at_zero_is_lost_and_refused(name: str, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theta = theta_of(name, **{entry: 0.0})
    with pytest.raises(ConfigError, match=f"no derivative for {entry} at exactly 0"):
        estimates(name, "truncated_backprop", "higher", theta, count=1)
    assert float(unchecked(name, theta, monkeypatch).grad[entry]) == 0.0
    assert abs(slope(name, theta, entry, monkeypatch)) > 1e-4


def test_what_it_cannot_run_is_refused() -> None:
    recipe = ESTIMATORS["truncated_backprop"](window=4, backend="higher")
    for learner, message in (
        (learners.get("learnable_adam"), "runs the rules sgd, momentum, adam, got 'learnable_adam'"),
        (learners.get("nadam"), "got 'nadam'; use backend own"),
        (GradientLearner(get_rule("sgd"), weight_decay=0.1), r"no decoupled weight decay, got weight_decay=0\.1"),
    ):
        with pytest.raises(ConfigError, match=message):
            recipe.build(learner, source(HORIZON), 2, 0)
    with pytest.raises(ConfigError, match="no hyperparameter 'alpha' for sgd; it has lr, weight_decay"):
        recipe.build(learners.get("sgd"), source(HORIZON), 2, 0).estimate({"alpha": torch.tensor(0.1)}, 0)
    with pytest.raises(ConfigError, match="set compile: false"):
        recipe.build(learners.get("sgd"), source(HORIZON), 2, 0, compiled=True).estimate(theta_of("sgd"), 0)


def test_a_program_with_its_own_gradient_is_refused() -> None:
    program = stack_tasks([source(HORIZON).task(0, 0)]).program
    odd = type("Odd", (type(program),), {"gradients": lambda self, *args: None})(program.rows, program.columns, program.noise)
    with pytest.raises(ConfigError, match="has gradients of its own; use backend own"):
        higher_backend.make_step(learners.get("sgd"), odd, True, False)


def test_it_is_imported_on_demand_only() -> None:
    code = "import metaopt.estimators, metaopt.estimators.higher_backend, sys; sys.exit('higher' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_backends_are_checked() -> None:
    with pytest.raises(ConfigError, match="backend must be one of own, higher, got 'theirs'"):
        ESTIMATORS["full_backprop"](backend="theirs")
