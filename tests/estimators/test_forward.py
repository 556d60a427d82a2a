"""Forward mode against backpropagation on bundled tasks, and directions that belong to an episode."""

import itertools
import math

import pytest
import torch

from metaopt import learners
from metaopt.errors import ConfigError
from metaopt.estimators import ForwardMode, FullBackprop, flatten, forward
from metaopt.estimators.tangents import floating, prefixed, signs, unprefixed
from metaopt.learners import GradientLearner
from metaopt.learners.update_rules import get_rule
from metaopt.seeds import key
from tests.estimators.float64 import source
from tests.oracles import smooth
from tests.oracles.influence_balancing import Endless, member_estimates

ADAM = {"lr": 0.05, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3, "weight_decay": 0.01}


@pytest.mark.parametrize(
    ("rule", "family", "template", "theta"),
    [
        ("adam", "quadratic", "10x1-gradient", ADAM),
        ("learnable_adam", "digits_mlp", "16-tanh-b32", None),
        ("momentum", "digits_mlp", "24-gelu-b16", {"lr": 0.05, "momentum": 0.9}),
    ],
)
def test_it_equals_backpropagation(rule: str, family: str, template: str, theta) -> None:
    learner, episodes = GradientLearner(get_rule(rule)), source(9, family, template)
    given = theta or learner.init_theta(0)
    at = {name: torch.as_tensor(value).double() for name, value in given.items()}
    reverse = FullBackprop().build(learner, episodes, 1, 0).estimate(at, 0)
    estimator = ForwardMode(window=3).build(learner, episodes, 1, 0)
    estimates = [estimator.estimate(at, k) for k in range(3)]  # tangents persist from window to window
    mean = torch.stack([flatten(each.grad) for each in estimates]).mean(0)
    torch.testing.assert_close(mean, flatten(reverse.grad), rtol=1e-9, atol=1e-12)
    assert sum(each.loss for each in estimates) / 3 == pytest.approx(reverse.loss, rel=1e-12)
    assert [(each.inner_steps, each.sequential_steps) for each in estimates] == [(6, 3)] * 3


def test_the_last_loss_of_runs_that_end_in_a_window() -> None:
    truth = smooth.exact("last")
    theta, whole = smooth.Smooth().init_theta(), ForwardMode(window=12, objective="last").build(smooth.Smooth(), Endless(12), 2, 0)
    found = whole.estimate(theta, 0)
    torch.testing.assert_close(flatten(found.grad), truth, rtol=1e-12, atol=1e-14)
    assert found.loss == pytest.approx(float(smooth.losses(theta)[-1]), rel=1e-12)
    windows = ForwardMode(window=5, objective="last").build(smooth.Smooth(), Endless(12), 1, 0)
    estimates = [
        windows.estimate(theta, k) for k in range(5)
    ]  # runs end at step 2 of the third window, and at the end of the fifth but one
    assert [torch.isfinite(flatten(each.grad)).all().item() for each in estimates] == [False, False, True, False, True]
    assert [math.isfinite(each.loss) for each in estimates] == [False, False, True, False, True]
    for each in (estimates[2], estimates[4]):
        torch.testing.assert_close(flatten(each.grad), truth, rtol=1e-12, atol=1e-14)


def test_every_run_counts_once_for_its_last_loss() -> None:
    theta = smooth.Smooth().init_theta()
    staggered = ForwardMode(window=12, objective="last").build(smooth.Smooth(), Endless(12, staggered=True), 5, 0)
    staggered.estimate(theta, 0)  # runs that begin in their midst end earlier
    found = staggered.estimate(theta, 1)
    torch.testing.assert_close(flatten(found.grad), smooth.exact("last"), rtol=1e-12, atol=1e-14)
    assert (found.inner_steps, found.sequential_steps, found.diverged) == (120, 12, 0)
    assert found.loss_se == pytest.approx(0.0, abs=1e-12)


def test_all_patterns_of_signs_average_to_the_last_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = 1.0 - 2.0 * torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64)
    monkeypatch.setattr(forward.ForwardModeEstimator, "_directions", lambda self, places, like: patterns[:, None])
    recipe = ForwardMode(window=12, tangents=1, objective="last")
    found = recipe.build(smooth.Smooth(), Endless(12), 4, 0).estimate(smooth.Smooth().init_theta(), 0)
    torch.testing.assert_close(flatten(found.grad), smooth.exact("last"), rtol=1e-12, atol=1e-14)


def test_an_unknown_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="objective must be mean or last, got 'first'"):
        ForwardMode(window=2, objective="first").build(smooth.Smooth(), Endless(), 2, 0)  # type: ignore[arg-type]


def test_float32_is_close() -> None:
    learner, episodes = learners.get("learnable_adam"), source(9).episodes
    theta = learner.init_theta(0)
    reverse = FullBackprop().build(learner, episodes, 1, 0).estimate(theta, 0)
    estimator = ForwardMode(window=9).build(learner, episodes, 1, 0)
    estimator.pairs.episodes = type("Whole", (), {"task": episodes.task, "run_seed": episodes.run_seed, "stagger": lambda self, p: 0.0})()
    got = estimator.estimate(theta, 0)
    torch.testing.assert_close(flatten(got.grad), flatten(reverse.grad), rtol=1e-3, atol=1e-6)


def test_all_patterns_of_signs_average_to_the_exact_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = 1.0 - 2.0 * torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64)
    monkeypatch.setattr(forward.ForwardModeEstimator, "_directions", lambda self, places, like: patterns[:, None])
    members = member_estimates(ForwardMode(window=4, tangents=1), smooth.Smooth(), Endless(12), smooth.Smooth().init_theta(), 4, 3)
    torch.testing.assert_close(members.mean(0), smooth.exact(), rtol=1e-12, atol=1e-14)
    slopes = patterns @ smooth.exact()
    torch.testing.assert_close(members, slopes[:, None] * patterns, rtol=1e-12, atol=1e-14)  # each one (dL . v) v


def test_directions_belong_to_an_episode() -> None:
    theta = smooth.Smooth().init_theta()
    estimator = ForwardMode(window=2, tangents=5).build(smooth.Smooth(), Endless(4), 3, 7)
    like = flatten(theta)
    first = estimator._directions([(0, 0)] * 6, like)
    assert first.shape == (6, 5, 3)
    assert set(first.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(first, estimator._directions([(0, 3)] * 6, like))  # whatever step of it
    assert not torch.equal(first, estimator._directions([(1, 0)] * 6, like))
    assert not torch.equal(first[0], first[1])
    other = ForwardMode(window=2, tangents=5).build(smooth.Smooth(), Endless(4), 3, 8)
    assert not torch.equal(first, other._directions([(0, 0)] * 6, like))


def test_more_directions_have_less_variance() -> None:
    theta = smooth.Smooth().init_theta()
    spread = {
        count: member_estimates(ForwardMode(window=12, tangents=count), smooth.Smooth(), Endless(12), theta, 500, 1).var(0).sum()
        for count in (1, 4)
    }
    truth = smooth.exact()
    # Signs: the variance is (P - 1) |g|^2 / K summed over entries.
    assert float(spread[1]) == pytest.approx(2.0 * float(truth.square().sum()), rel=0.15)
    assert float(spread[4]) == pytest.approx(0.5 * float(truth.square().sum()), rel=0.15)


def test_parts_of_carries_and_thetas() -> None:
    carry = {"a": torch.ones(2), "n": torch.tensor(3), "b": [torch.zeros(1), torch.tensor(2.0)]}
    values, rebuild = floating(carry)
    assert [tuple(value.shape) for value in values] == [(2,), (1,), ()]
    back = rebuild([value + 1 for value in values])
    assert (back["a"].tolist(), int(back["n"]), float(back["b"][1])) == ([2.0, 2.0], 3, 3.0)
    parts = prefixed(at={"x/y": torch.ones(1)}, along={"x/y": torch.zeros(1)})
    assert unprefixed(parts, "at")["x/y"].item() == 1.0
    assert list(unprefixed(parts, "along")) == ["x/y"]


def test_signs_are_balanced_and_pure() -> None:
    draw = signs(key("here"), (4000,), torch.float32)
    assert set(draw.tolist()) == {-1.0, 1.0}
    assert abs(float(draw.mean())) < 0.05
    assert torch.equal(draw, signs(key("here"), (4000,), torch.float32))


def test_compiling_is_refused() -> None:
    with pytest.raises(ConfigError, match="forward_mode runs uncompiled only, got compile=true"):
        ForwardMode(window=2).build(smooth.Smooth(), Endless(), 2, 0, compiled=True)


def test_too_many_exact_tangents_are_refused() -> None:
    learner = learners.get("mlp")
    theta = learner.init_theta(0)
    with pytest.raises(ConfigError, match=r"one tangent for each of \d+ meta-parameters, at most 1000; set tangents"):
        ForwardMode(window=3).build(learner, source(3).episodes, 1, 0).estimate(theta, 0)
    got = ForwardMode(window=3, tangents=2).build(learner, source(3).episodes, 1, 0).estimate(theta, 0)
    assert torch.isfinite(flatten(got.grad)).all()
