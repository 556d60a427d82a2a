"""The coordinate-wise LSTM: sizes, what it must be blind to, and its meta-gradient with and without second derivatives."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import ConfigError
from metaopt.estimators import flatten, unflatten
from metaopt.estimators.backprop import TruncatedBackprop
from metaopt.learners.update_rules import UpdateRule, apply_rule, get_rule
from metaopt.learners.update_rules.lstm import FEATURES, log_and_sign
from metaopt.learners.update_rules.rule import Theta
from metaopt.tasks.augmentations.scaled_loss import WithScaledLoss
from metaopt.tasks.source import TaskSource
from tests.learners.reference import LSTMReference

INPUTS = pytest.mark.parametrize("inputs", list(FEATURES))


# As published: random weights, and no linear path.
PUBLISHED = {"start": "random", "skip": False}


def draws(*parts: object, shape: tuple[int, ...] = ()) -> Tensor:
    return seeds.normal(seeds.key("lstm", *parts), shape, torch.float64)


def fine(rule: UpdateRule, seed: int = 0) -> Theta:
    """Random meta-parameters in float64, none of them zero."""
    theta = {name: value.double() for name, value in rule.init_theta(seed).items()}
    return {name: value + 0.1 * draws(name, shape=tuple(value.shape)) for name, value in theta.items()}


def bowls(count: int, horizon: int = 30) -> list[tasks.Task]:
    family = tasks.get("quadratic")
    return [family.build(family.sample("10x1-gradient", seed, (horizon, horizon))) for seed in range(count)]


@pytest.mark.parametrize(
    ("options", "count", "state_floats"),
    [
        ({"inputs": "dm"}, 5141, 80),
        ({"inputs": "raw"}, 5061, 80),
        ({"inputs": "rnnprop"}, 6641, 82),
        ({"inputs": "dm", "skip": True}, 5143, 80),
        ({"start": "adam", "skip": True}, 6643, 82),
        ({"inputs": "dm", "hidden": 4, "layers": 1}, 4 * 4 * (2 + 4 + 1) + 5, 8),
    ],
)
def test_sizes_are_the_published_ones(options: dict[str, object], count: int, state_floats: int) -> None:
    """One bias vector a cell: torch's two would be 160 more."""
    rule = get_rule("lstm", **{**PUBLISHED, **options})
    assert sum(value.numel() for value in rule.init_theta(0).values()) == count
    assert sum(value.numel() for value in rule.init_state(torch.zeros(5, 3)).values()) == state_floats * 15


@pytest.mark.parametrize(
    "options",
    [
        {"inputs": "dm", "hidden": 4, "layers": 1},
        {"inputs": "raw", "hidden": 3, "layers": 3, "output_scale": 0.5},
        {"eps": 0.0, "hidden": 3},
    ],
    ids=str,
)
def test_it_equals_its_reference(options: dict[str, object]) -> None:
    """Other options than in the table of all rules."""
    rule = get_rule("lstm", **{**PUBLISHED, **options})
    theta, shape = fine(rule), (2, 3)
    expected = LSTMReference({name: value.numpy() for name, value in theta.items()}, shape, options)
    state = rule.init_state(torch.zeros(shape, dtype=torch.float64))
    for t in range(8):
        grad = draws("g", t, shape=shape) * 10.0 ** (2 * (t % 4) - 6)
        step, state = rule.update(theta, torch.zeros_like(grad), grad, state, torch.tensor(t))
        torch.testing.assert_close(step, torch.as_tensor(expected.step(None, grad.numpy())), rtol=1e-10, atol=1e-14)


@INPUTS
def test_a_silent_output_never_moves_a_weight(inputs: str) -> None:
    learner = learners.get("lstm", inputs=inputs, **PUBLISHED)
    theta = learner.init_theta(1)
    silent = {name: torch.zeros_like(value) if name.startswith("output") else value for name, value in theta.items()}
    still = inner.run(learners.get("sgd", lr=0.0), {}, bowls(2), [3, 4], 1).carry["params"]["x"]
    assert torch.equal(inner.run(learner, silent, bowls(2), [3, 4], 30).carry["params"]["x"], still)
    assert not torch.equal(inner.run(learner, theta, bowls(2), [3, 4], 1).carry["params"]["x"], still)


def test_windows_of_20_and_of_100_go_the_same_way() -> None:
    """Truncation cuts derivatives, never the run: equal bits, over restarts too."""
    learner = learners.get("lstm", hidden=4, **PUBLISHED)
    theta, ends = learner.init_theta(0), []
    for window in (20, 100):
        source = TaskSource(tasks.get("quadratic"), "5x5-none", (30, 60), 3)
        estimator = TruncatedBackprop(window=window).build(learner, source, 1, 0)
        for step in range(100 // window):
            estimator.estimate(theta, step)
        ends.append(estimator.pairs)
    assert ends[0].episode == ends[1].episode
    for name in ("params", "state"):
        one, two = (tree_leaves(pairs.carry[name]) for pairs in ends)
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@INPUTS
def test_permuting_the_weights_of_a_matrix_permutes_the_steps(inputs: str) -> None:
    rule = get_rule("lstm", inputs=inputs, hidden=5, **PUBLISHED)
    theta, order = fine(rule), torch.tensor([4, 0, 11, 2, 8, 1, 10, 3, 9, 5, 7, 6])
    plain = mixed = rule.init_state(torch.zeros(3, 4, dtype=torch.float64))
    for t in range(4):
        param, grad = draws("p", t, shape=(3, 4)), draws("g", t, shape=(3, 4))
        one, plain = rule.update(theta, param, grad, plain, torch.tensor(t))
        permuted = [value.reshape(-1)[order].reshape(3, 4) for value in (param, grad)]
        two, mixed = rule.update(theta, *permuted, mixed, torch.tensor(t))
        torch.testing.assert_close(two.reshape(-1), one.reshape(-1)[order], rtol=1e-13, atol=1e-15)


def test_rnnprop_does_not_see_the_scale_of_the_loss() -> None:
    """Powers of two leave every bit as it is, without an epsilon; another factor only rounds."""
    (bowl,) = bowls(1)

    def params(inputs: str, scale: float) -> Tensor:
        learner = learners.get("lstm", inputs=inputs, eps=0.0, **PUBLISHED)
        scaled = replace(bowl, program=WithScaledLoss(bowl.program), numbers={**bowl.numbers, "loss_scale": torch.tensor(scale)})
        return inner.run(learner, learner.init_theta(2), [scaled], [5], 30).carry["params"]["x"]

    plain = params("rnnprop", 1.0)
    assert all(torch.equal(params("rnnprop", scale), plain) for scale in (2.0**-20, 2.0**14))
    torch.testing.assert_close(params("rnnprop", 1e-4), plain, rtol=1e-4, atol=1e-4)
    assert float((params("dm", 1e-4) - params("dm", 1.0)).abs().max()) > 1e-3


def test_rnnprop_takes_no_step_from_zero_gradients_by_dividing_by_zero() -> None:
    rule = get_rule("lstm", inputs="rnnprop", eps=0.0, second_order=True)
    theta = {name: value.requires_grad_() for name, value in fine(rule).items()}
    grad = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    direction, state = rule.update(theta, grad.detach(), grad, rule.init_state(grad.detach()), torch.tensor(0))
    found = torch.autograd.grad(direction.sum() + state["h"].sum(), [grad, *theta.values()], allow_unused=True)
    assert torch.isfinite(direction).all()
    assert all(value is None or torch.isfinite(value).all() for value in found)


def test_inputs_are_continuous_at_the_switch() -> None:
    p = 10.0
    edge = torch.tensor(math.exp(-p), dtype=torch.float64)
    sides = torch.stack([edge * (1 - 1e-12), edge, edge * (1 + 1e-12)])
    for sign in (1.0, -1.0):
        size, direction = log_and_sign(sign * sides, p)
        torch.testing.assert_close(size, torch.full((3,), -1.0, dtype=torch.float64), rtol=0, atol=1e-11)
        torch.testing.assert_close(direction, torch.full((3,), sign, dtype=torch.float64), rtol=0, atol=1e-11)


def test_inputs_by_hand() -> None:
    size, sign = log_and_sign(torch.tensor([1.0, -(math.e**5), 0.0, math.exp(-10.0) / 4, -math.exp(-12.0)], dtype=torch.float64))
    assert size.tolist() == pytest.approx([0.0, 0.5, -1.0, -1.0, -1.0])
    assert sign.tolist() == pytest.approx([1.0, -1.0, 0.0, 0.25, -math.exp(-2.0)])


def test_a_linear_path_alone_is_sgd() -> None:
    rule = get_rule("lstm", inputs="raw", start="random", output_scale=1.0)
    theta = {name: torch.zeros_like(value) for name, value in rule.init_theta(0).items()} | {"skip_weight": torch.ones(1)}
    sgd, param = get_rule("sgd"), draws("p", shape=(3, 4)).float()
    state, other = rule.init_state(param), param
    for t in range(5):
        grad = draws("g", t, shape=(3, 4)).float()
        param, state = apply_rule(rule, theta, param, grad, state, torch.tensor(t), 0.1)
        other, _ = apply_rule(sgd, {}, other, grad, {}, torch.tensor(t), 0.1)
        assert torch.equal(param, other)


@pytest.mark.parametrize("options", [{"inputs": "dm"}, {"inputs": "raw"}, {"skip": False}])
def test_the_start_of_adam_needs_its_inputs_and_the_linear_path(options: dict[str, object]) -> None:
    with pytest.raises(
        ConfigError, match=r"^start adam needs inputs rnnprop and skip true, got inputs \w+ and skip (true|false); set start to random$"
    ):
        get_rule("lstm", **options)


# One weight on f(x) = 1.5 x^2, and the mean loss of ten steps.
CURVATURE, STEPS = 3.0, 10


def walk(rule: UpdateRule, theta: Theta, gradient: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
    """The weight before each of the steps and after the last, under given gradients."""
    points = [torch.tensor([0.7], dtype=torch.float64)]
    state = rule.init_state(points[0])
    for t in range(STEPS):
        step, state = apply_rule(rule, theta, points[-1], gradient(t, points[-1]), state, torch.tensor(t), 1.0)
        points.append(step)
    return points


def central_differences(function: Callable[[Theta], Tensor], theta: Theta) -> Tensor:
    center = flatten(theta)
    found = torch.zeros_like(center)
    for i in range(len(center)):
        moved = [center.clone() for _ in range(2)]
        moved[0][i] += 1e-5
        moved[1][i] -= 1e-5
        high, low = (float(function(unflatten(each, theta))) for each in moved)
        found[i] = (high - low) / 2e-5
    return found


@INPUTS
@pytest.mark.parametrize("second_order", [True, False])
def test_the_meta_gradient_is_that_of_central_differences(inputs: str, second_order: bool) -> None:
    """Without second derivatives it is exactly that of a run whose gradients are given numbers."""
    rule = get_rule("lstm", inputs=inputs, hidden=2, layers=2, second_order=second_order, output_scale=0.1, start="random")
    theta = fine(rule)

    def loss(theta: Theta) -> Tensor:
        return torch.cat([0.5 * CURVATURE * x * x for x in walk(rule, theta, lambda t, x: CURVATURE * x)]).mean()

    met = [x.detach() for x in walk(rule, theta, lambda t, x: CURVATURE * x)]

    def first_order(theta: Theta) -> Tensor:
        points = walk(rule, theta, lambda t, x: CURVATURE * met[t])
        return torch.cat([CURVATURE * at * x for at, x in zip(met, points, strict=True)]).mean()

    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    got = torch.cat([grad.reshape(-1) for grad in torch.autograd.grad(loss(leaves), list(leaves.values()))])
    whole, partial = central_differences(loss, theta), central_differences(first_order, theta)
    torch.testing.assert_close(got, whole if second_order else partial, rtol=1e-6, atol=1e-9)
    assert float((whole - partial).norm() / whole.norm()) > 1e-3  # the test would say nothing if they were equal
