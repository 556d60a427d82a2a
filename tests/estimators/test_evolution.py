"""Evolution strategies against closed forms: influence balancing, exact enumeration, and states that continue bit for bit."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from metaopt import learners, seeds, tasks
from metaopt.errors import ConfigError
from metaopt.estimators import ESTIMATORS, Evolution, flatten
from metaopt.estimators.evolution import charged_gradient
from metaopt.learners.learner import StepRecord
from metaopt.tasks.source import TaskSource
from tests.oracles.influence_balancing import TRUTH, Balancing, Endless, N, P, matrix, member_estimates, standard_error

WHOLE = Endless()
THETA = {"theta": torch.tensor(0.5, dtype=torch.float64)}


def exact_derivative(horizon: int) -> float:
    """d(mean loss over the episode) / d(theta) by automatic differentiation of the recurrence."""
    theta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    s, total = torch.ones(N, dtype=torch.float64), 0.0
    sign = torch.tensor([1.0] * P + [-1.0] * (N - P), dtype=torch.float64)
    for _ in range(horizon):
        s = matrix(torch.float64) @ s + theta * sign
        total = total + 0.5 * (s[0] - 1.0) ** 2
    return float(torch.autograd.grad(total / horizon, theta)[0])


def episode_mean(kind: str, window: int, pairs: int, episodes: Endless = WHOLE, count: int | None = None, skip: int = 0):
    """Mean over one episode's windows of the estimates at a fixed theta, and its standard error over pairs."""
    count = count or (1 if kind == "full_es" else episodes.horizon // window)
    recipe = ESTIMATORS[kind](window=window, sigma=0.1)
    members = member_estimates(recipe, Balancing(), episodes, THETA, pairs, count, skip)
    return float(members.mean()), float(standard_error(members))


def test_the_oracle_is_the_published_one() -> None:
    assert exact_derivative(100) == pytest.approx(TRUTH, abs=5e-4)


@pytest.mark.parametrize(("window", "expected"), [(10, -1.78), (25, -3.71)])
def test_truncated_es_has_the_wrong_sign(window: int, expected: float) -> None:
    mean, error = episode_mean("truncated_es", window, 1000)
    assert mean < 0 < TRUTH
    assert abs(mean - expected) < 4 * error


@pytest.mark.parametrize("window", [10, 100])
def test_pes_is_unbiased(window: int) -> None:
    mean, error = episode_mean("pes", window, 5000)
    assert error < 1.2  # small enough that the wrong sign is 30 standard errors away
    assert abs(mean - TRUTH) < 4 * error


def test_full_es_is_unbiased() -> None:
    mean, error = episode_mean("full_es", 7, 5000)  # its window is the horizon, whatever it was given
    assert error < 1.2
    assert abs(mean - TRUTH) < 4 * error


def test_pes_is_unbiased_when_episodes_end_inside_windows() -> None:
    # Horizon 20, window 8: an episode ends inside two windows of five. Two episodes are five windows, so each step counts equally.
    mean, error = episode_mean("pes", 8, 5000, Endless(horizon=20), count=5)
    truth = exact_derivative(20)
    assert error < 0.03 * abs(truth)
    assert abs(mean - truth) < 4 * error


def test_staggered_pes_is_unbiased() -> None:
    # After five windows every pair has begun a whole episode.
    mean, error = episode_mean("pes", 4, 4000, Endless(20, staggered=True), count=5, skip=5)
    assert error < 0.03 * abs(exact_derivative(20))
    assert abs(mean - exact_derivative(20)) < 4 * error


@dataclass(frozen=True)
class Parabola:
    """A learner whose loss is 0.5 (theta - 3)' C (theta - 3) with C = diag(1, 4), whatever happens."""

    def init_theta(self, seed: int):
        return {"a": torch.tensor([1.0], dtype=torch.float64), "b": torch.tensor(-1.0, dtype=torch.float64)}

    def init(self, theta, task, key):
        return {}

    def advance(self, theta, task, carry, batch):
        loss = 0.5 * (theta["a"][0] - 3.0) ** 2 + 2.0 * (theta["b"] - 3.0) ** 2
        return carry, StepRecord(loss)


def test_perturbations_are_normal_and_belong_to_step_and_pair() -> None:
    estimator = Evolution("pes", Parabola(), Endless(), 4, 0.3, window=1, seed=5)
    like = torch.zeros(3000, dtype=torch.float64)
    eps = estimator._noise(4, 17, like)
    assert float(eps.std()) == pytest.approx(0.3, rel=0.02)
    assert float(torch.corrcoef(eps).fill_diagonal_(0).abs().max()) < 0.08
    assert torch.equal(eps[:2], estimator._noise(2, 17, like))  # more pairs do not change the first ones
    assert not torch.equal(eps, estimator._noise(4, 18, like))
    other = Evolution("pes", Parabola(), Endless(), 4, 0.3, window=1, seed=6)
    assert not torch.equal(eps, other._noise(4, 17, like))


@pytest.mark.parametrize("window", [1, 3, 4, 12])
def test_pes_accumulates_the_noise_of_the_running_episode_only(window: int) -> None:
    # Noise of an earlier episode would not bias the estimate, so only this sees it.
    estimator = Evolution("pes", Balancing(), Endless(5, staggered=True), 10, 0.1, window, seed=0)
    drawn = []
    for k in range(8):
        estimator.estimate(THETA, k)
        drawn.append(estimator._noise(10, k, torch.zeros(1, dtype=torch.float64)))
        for p, clock in enumerate(estimator.pairs.clock):
            windows = 0 if clock >= estimator.pairs.length[p] else math.ceil(clock / window)  # that the running episode has met
            want = sum((eps[p] for eps in drawn[len(drawn) - windows :]), torch.zeros(1, dtype=torch.float64))
            torch.testing.assert_close(estimator.accumulated[p], want, rtol=1e-12, atol=1e-15)


def test_charged_gradient_by_hand() -> None:
    differences = torch.tensor([[4.0, 18.0], [-7.0, 0.0]])
    old, new = torch.tensor([[1.0, 10.0], [2.0, 20.0]]), torch.tensor([[0.5, 3.0], [9.0, 9.0]])
    got = charged_gradient(differences, (old, new), sigma=0.5)
    # pair 0: 4 old - 7 new; pair 1: 18 old; both over 2 sigma^2 = 0.5
    assert got.tolist() == [[2 * (4 * 1 - 7 * 0.5), 2 * (4 * 10 - 7 * 3)], [2 * 18 * 2, 2 * 18 * 20]]


def test_loss_and_its_standard_error_are_over_pairs() -> None:
    @dataclass(frozen=True)
    class Telling(Parabola):
        def init(self, theta, task, key):
            return {"loss": key.to(torch.float64)}

        def advance(self, theta, task, carry, batch):
            return carry, StepRecord(carry["loss"] * 1e-18)

    got = Evolution("pes", Telling(), Endless(), 5, 0.1, window=2, seed=0).estimate(Parabola().init_theta(0), 0)
    losses = torch.stack([seeds.fold_in(torch.tensor(p), 0).double() * 1e-18 for p in range(5)])
    assert got.loss == pytest.approx(float(losses.mean()), rel=1e-9)
    assert got.loss_se == pytest.approx(float(losses.std()) / 5**0.5, rel=1e-9)
    assert got.inner_steps == 2 * 5 * 2
    assert math.isnan(Evolution("pes", Telling(), Endless(), 1, 0.1, 2, 0).estimate(Parabola().init_theta(0), 0).loss_se)


@dataclass(frozen=True)
class Breaking(Parabola):
    """The loss is not finite, or at the cap, where `a` was perturbed upwards."""

    bad: float = math.inf

    def advance(self, theta, task, carry, batch):
        return carry, StepRecord(torch.where(theta["a"][0] > 1.0, self.bad, 1.0))


@pytest.mark.parametrize(("bad", "nonfinite"), [(math.inf, 6), (math.nan, 6), (1e12, 0)])
def test_bad_losses_are_counted_and_capped(bad: float, nonfinite: int) -> None:
    estimator = Evolution("pes", Breaking(bad), Endless(), 6, 0.1, window=4, seed=0)
    got = estimator.estimate(Parabola().init_theta(0), 0)
    assert (got.nonfinite, got.diverged) == (nonfinite, 6)  # one member of every pair
    assert all(torch.isfinite(g).all() for g in got.grad.values())  # the cap stands in for the loss
    assert estimator.accumulated is not None
    assert not estimator.accumulated.any()  # every pair restarts with fresh noise
    estimator.estimate(Parabola().init_theta(0), 1)
    assert estimator.pairs.episode == [1] * 6


def test_full_es_counts_only_steps_inside_each_horizon() -> None:
    @dataclass(frozen=True)
    class Uneven(Endless):
        def task(self, particle, episode):
            return replace(super().task(particle, episode), numbers={"horizon": torch.tensor(2.0 + 3 * particle, dtype=torch.float64)})

    @dataclass(frozen=True)
    class Counting(Parabola):
        def init(self, theta, task, key):
            return {"t": torch.zeros((), dtype=torch.float64)}

        def advance(self, theta, task, carry, batch):
            return {"t": carry["t"] + 1}, StepRecord(carry["t"])

    got = Evolution("full_es", Counting(), Uneven(), 3, 0.1, window=1, seed=0).estimate(Parabola().init_theta(0), 0)
    assert got.inner_steps == 2 * (2 + 5 + 8)
    assert got.loss == pytest.approx((0.5 + 2.0 + 3.5) / 3)


def make(kind: str) -> tuple[Evolution, dict[str, torch.Tensor]]:
    learner = learners.get("learnable_adam")
    source = TaskSource(tasks.get("quadratic"), "10x1-gradient", (5, 9), seed=3)
    return Evolution(kind, learner, source, 3, 0.05, window=4, seed=2), learner.init_theta(0)


@pytest.mark.parametrize("kind", ["pes", "truncated_es", "full_es"])
def test_state_continues_bit_for_bit(kind: str) -> None:
    whole, theta = make(kind)
    expected = [whole.estimate(theta, k) for k in range(6)]
    half, _ = make(kind)
    for k in range(3):
        half.estimate(theta, k)
    other, _ = make(kind)
    other.load(half.state())
    for k in range(3, 6):
        got = other.estimate(theta, k)
        assert torch.equal(flatten(got.grad), flatten(expected[k].grad))
        assert (got.loss, got.loss_se, got.inner_steps) == (expected[k].loss, expected[k].loss_se, expected[k].inner_steps)


@pytest.mark.parametrize("kind", ["pes", "truncated_es", "full_es"])
def test_the_same_theta_and_step_give_the_same_estimate(kind: str) -> None:
    (one, theta), (two, _) = make(kind), make(kind)
    first = one.estimate(theta, 5)
    second = two.estimate(theta, 5)
    assert torch.equal(flatten(first.grad), flatten(second.grad))
    assert not torch.equal(flatten(first.grad), flatten(make(kind)[0].estimate(theta, 6).grad))
    assert list(first.grad) == list(theta)
    assert all(first.grad[name].shape == theta[name].shape for name in theta)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="kind must be one of pes, truncated_es, full_es, got 'es'"):
        Evolution("es", Balancing(), Endless(), 1, 0.1, 1, 0)
    with pytest.raises(ConfigError, match=r"sigma must be > 0, got 0\.0"):
        Evolution("pes", Balancing(), Endless(), 1, 0.0, 1, 0)
