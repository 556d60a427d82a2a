"""The watch on the noisy quadratic, whose cosines are known, in simulated runs: sensitivity, false alarms, and what it tells.

Legend: R runs, T steps, D directions.
"""

import json
import math

import numpy as np
import pytest
import torch

from metaopt.learners.hypergradients.stationarity import (
    OSCILLATING,
    WINDOWS,
    Stationarity,
    cosine,
    frozen_cosine,
    loss_change,
)
from metaopt.tasks.oracles.noisy_quadratic import (
    NoisyQuadratic,
    excess_loss,
    expected_hypergradient,
    moments,
    momentum_moments,
    spectrum_problem,
    stationary_moments,
)

RUNS = 200
HUNDRED = spectrum_problem(np.logspace(0, -3, 100), 100)
EQUAL = NoisyQuadratic(np.ones(300), np.ones(300), np.ones(300))


def simulate(problem: NoisyQuadratic, second_moments, rate: float, steps: int, runs: int = RUNS, hyper: float = 0.0, seed: int = 0):
    """Return cosines of consecutive gradients [R, T] and the rates [R, T] of simulated SGD; `hyper`: log rate += hyper * cosine."""
    generator, deviation = np.random.default_rng(seed), np.sqrt(problem.noise)
    w = generator.normal(size=(runs, len(problem.curvature))) * np.sqrt(second_moments)
    rates, before, cosines, used = np.full(runs, rate), None, [], []
    for _ in range(steps + 1):
        g = problem.curvature * (w - generator.normal(size=w.shape) * deviation)
        if before is not None:
            cosines.append((g * before).sum(1) / np.sqrt((g * g).sum(1) * (before * before).sum(1)))
            rates = rates * np.exp(hyper * cosines[-1])
            used.append(rates)
        before, w = g, w - rates[:, None] * g
    return np.stack(cosines, 1), np.stack(used, 1)


def watch(cosines) -> tuple[Stationarity, int | None]:
    """Return the watch after these cosines, and the steps before its warning."""
    watcher, warned = Stationarity(), None
    for t, one in enumerate(cosines.tolist()):
        if watcher.update(one):
            assert warned is None, "it warns once"
            warned = t
    return watcher, warned


def known_cosine(problem: NoisyQuadratic, rate: float) -> float:
    """Return E[g' . g] / E[g^2] at the stationary moments: -rate / 2 times the curvature weighted by the gradient's power."""
    power = problem.curvature**2 * (stationary_moments(problem, rate) + problem.noise)
    return float(-0.5 * rate * (problem.curvature * power).sum() / power.sum())


def test_the_stationary_cosine_is_half_the_rate_times_the_curvature():
    for rate in (0.05, 0.5, 1.5):
        second = stationary_moments(HUNDRED, rate)
        power = (HUNDRED.curvature**2 * (second + HUNDRED.noise)).sum()
        assert expected_hypergradient(HUNDRED, second, rate) / power == pytest.approx(known_cosine(HUNDRED, rate), rel=1e-12)
        assert known_cosine(EQUAL, rate) == pytest.approx(-rate / 2, rel=1e-12)


@pytest.mark.parametrize(("rate", "state"), [(0.3, "noise floor"), (0.8, "noise floor"), (1.2, "oscillating"), (1.8, "oscillating")])
def test_at_the_floor_every_run_says_whether_the_rate_is_too_large(rate, state):
    """With one curvature the border is known: the rate 1 / h, where a step forgets everything."""
    cosines, _ = simulate(EQUAL, stationary_moments(EQUAL, rate), rate, 150)
    assert cosines.mean() == pytest.approx(-rate / 2, abs=0.005)
    watched = [watch(row) for row in cosines]
    assert {one.state for one, _ in watched} == {state}
    warned = [at for _, at in watched if at is not None]
    assert len(warned) == (RUNS if state == "noise floor" else 0), "where the hypergradient is right there is nothing to warn of"
    assert [one.cosine for one, _ in watched] == pytest.approx([-rate / 2] * RUNS, abs=0.05)


@pytest.mark.parametrize(("rate", "steps", "seen"), [(0.5, 200, 0.95), (0.2, 1000, 0.95)])
def test_the_floor_of_a_wide_spectrum_is_seen(rate, steps, seen):
    """Sensitivity: the smaller the rate, the smaller the cosine, and the longer it takes."""
    cosines, _ = simulate(HUNDRED, stationary_moments(HUNDRED, rate), rate, steps)
    assert cosines.mean() == pytest.approx(known_cosine(HUNDRED, rate), rel=0.07)
    watched = [watch(row) for row in cosines]
    assert sum(at is not None for _, at in watched) >= seen * RUNS
    assert {one.state for one, _ in watched} <= {"noise floor", "undecided"}


def test_gradients_that_know_nothing_of_each_other_raise_no_alarm():
    """False alarms: cosines of mean zero, as at the greedy rate; the spread is that of a hundred directions."""
    cosines = np.random.default_rng(0).normal(size=(RUNS, 1200)) * 0.19
    assert sum(watch(row)[1] is not None for row in cosines) <= 1


def test_runs_that_make_progress_raise_no_alarm():
    """From far away at a third of the greedy rate: the expected hypergradient is positive all the way."""
    far, rate = np.full(300, 400.0), 0.02
    path = moments(NoisyQuadratic(EQUAL.curvature, EQUAL.noise, far), np.full(150, rate))
    assert all(expected_hypergradient(EQUAL, second, rate) > 0 for second in path)
    watched = [watch(row) for row in simulate(EQUAL, far, rate, 150)[0]]
    assert all(at is None for _, at in watched)
    assert {one.state for one, _ in watched} == {"progress"}


def test_the_warning_comes_before_the_rate_is_gone():
    """Hypergradient descent, from the stationary state of a good rate: warned of in time, and the fall goes on."""
    cosines, rates = simulate(HUNDRED, stationary_moments(HUNDRED, 0.5), 0.5, 1500, runs=40, hyper=0.01)
    warned = [watch(row)[1] for row in cosines]
    at = [r[step] for r, step in zip(rates, warned, strict=True) if step is not None]
    assert len(at) >= 38
    assert np.median(at) > 0.3 * 0.5
    assert np.median(rates[:, -1]) < 0.4 * 0.5, "like 1 / t"


def test_the_loss_falls_if_and_only_if_the_frozen_product_outweighs_the_running_one():
    """The trapezoid rule along the step, for SGD at any moments: -rate (F + R) / 2."""
    for rate in (0.05, 0.6, 1.7):
        start = HUNDRED.start * np.linspace(0.0, 2.0, 100)
        problem = NoisyQuadratic(HUNDRED.curvature, HUNDRED.noise, start)
        frozen = float((HUNDRED.curvature**2 * start).sum())
        losses = excess_loss(problem, moments(problem, np.array([rate])))
        assert loss_change(rate, frozen, expected_hypergradient(problem, start, rate)) == pytest.approx(losses[1] - losses[0], rel=1e-12)
        still = stationary_moments(HUNDRED, rate)
        assert expected_hypergradient(HUNDRED, still, rate) == pytest.approx(-float((HUNDRED.curvature**2 * still).sum()), rel=1e-9)


def test_with_momentum_the_sign_at_the_floor_is_the_same():
    """Simulated heavy ball: g(w') . v is negative, -rate v'Hv / 2, and the loss change has the same formula."""
    generator, rate, momentum, runs = np.random.default_rng(1), 0.3, 0.8, 4000
    steep = spectrum_problem(np.array([1.0, 0.3, 0.1]), 10)
    w = np.zeros((runs, 3))
    v = np.zeros_like(w)
    for _ in range(300):
        v = momentum * v + steep.curvature * (w - generator.normal(size=w.shape) * np.sqrt(steep.noise))
        w = w - rate * v
    running = (steep.curvature * w * v).sum(1)
    bend = -0.5 * rate * (steep.curvature * v * v).sum(1)
    assert abs((running - bend).mean()) < 4 * (running - bend).std() / math.sqrt(runs)
    assert running.mean() < -4 * running.std() / math.sqrt(runs)
    floor = momentum_moments(steep, np.full(300, rate), momentum)[-1]
    assert (w**2).mean(0) == pytest.approx(floor, rel=0.1)


def test_one_line_that_says_what_happens_and_what_to_do():
    watcher = Stationarity()
    lines = [line for line in (watcher.update(-0.2) for _ in range(300)) if line]
    assert lines == [
        "the hypergradient of lr has been negative for 100 of the last 100 steps, with a mean cosine of -0.2: noise, not curvature. "
        "The rate is being driven to its floor. Freeze it (take 'lr' out of learn=, or give it a lower bound), "
        "use a schedule, or a larger batch"
    ]


def test_states_in_the_order_of_a_run():
    watcher = Stationarity()
    assert math.isnan(watcher.cosine)
    assert watcher.state == "starting"
    for _ in range(WINDOWS[0]):
        watcher.update(0.3)
    assert (watcher.state, watcher.cosine) == ("progress", pytest.approx(0.3))
    for _ in range(500):
        watcher.update(2 * OSCILLATING * 0.9)
    assert watcher.state == "oscillating"
    flat = Stationarity()
    for t in range(200):
        flat.update(0.1 if t % 2 else -0.1)
    assert flat.state == "undecided"


def test_no_number_is_no_step():
    watcher = Stationarity()
    watcher.update(0.5)
    before = watcher.state_dict()
    for bad in (math.nan, math.inf, -math.inf):
        assert watcher.update(bad) is None
    assert watcher.state_dict() == before


def test_a_restored_watch_goes_on_bit_for_bit():
    [row] = simulate(HUNDRED, stationary_moments(HUNDRED, 0.5), 0.5, 400, runs=1)[0].tolist()
    whole, first, second = Stationarity(), Stationarity(), Stationarity()
    said = [whole.update(one) for one in row]
    said_first = [first.update(one) for one in row[:170]]
    kept = first.state_dict()
    assert all(type(value) is float for value in kept.values())
    second.load_state_dict(json.loads(json.dumps(kept)))
    assert said_first + [second.update(one) for one in row[170:]] == said
    assert second.state_dict() == whole.state_dict()
    assert (second.state, second.cosine) == (whole.state, whole.cosine)


@pytest.mark.parametrize(
    ("dot", "now", "then", "expected"),
    [(3.0, 2.0, 3.0, 0.5), (-9.0, 2.0, 3.0, -1.0), (0.0, 0.0, 1.0, math.nan), (math.inf, 1.0, 1.0, math.nan)],
)
def test_a_cosine_from_a_dot_product_and_two_norms(dot, now, then, expected):
    assert cosine(dot, now, then) == pytest.approx(expected, nan_ok=True)


def test_frozen_cosine_is_the_power_of_the_mean_gradient():
    generator = torch.Generator().manual_seed(0)
    mean = torch.full((50,), 0.3, dtype=torch.float64)
    batches = [torch.randn(50, generator=generator, dtype=torch.float64) * 2.0 for _ in range(4000)]
    found = frozen_cosine(lambda shift, batch: [shift + batch], mean, batches)
    assert found.batches == 4000
    assert found.squared_norm == pytest.approx(4.5, rel=0.03)
    assert found.signal_to_noise == pytest.approx(4.5 / 200, rel=0.03)
    assert found.cosine == pytest.approx(4.5 / 204.5, rel=0.03)


def test_frozen_cosine_counts_each_pair_once():
    one, two, three = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0])
    found = frozen_cosine(lambda _, batch: [batch[:1], batch[1:]], None, [one, two, three])
    assert found.squared_norm == pytest.approx((1.0 + 0.0 + 2.0) / 3)
    assert found.cosine == pytest.approx(1.0 / (7 / 3))
    alike = frozen_cosine(lambda _, batch: [batch], None, [one, one])
    assert (alike.cosine, alike.signal_to_noise) == (1.0, math.inf)
    with pytest.raises(ValueError, match="at least two batches, got 1"):
        frozen_cosine(lambda _, batch: [batch], None, [one])


def test_at_the_floor_frozen_and_running_products_are_equal_and_opposite():
    """What a researcher does with both: fresh batches at simulated stationary weights, then one step on."""
    generator, rate, runs = np.random.default_rng(3), 0.5, 20_000
    w = generator.normal(size=(runs, 100)) * np.sqrt(stationary_moments(HUNDRED, rate))

    def gradient(at):
        return HUNDRED.curvature * (at - generator.normal(size=at.shape) * np.sqrt(HUNDRED.noise))

    step = gradient(w)
    frozen, running = (gradient(w) * step).sum(1), (gradient(w - rate * step) * step).sum(1)
    assert abs((frozen + running).mean()) < 4 * (frozen + running).std() / math.sqrt(runs)
    assert frozen.mean() > 10 * frozen.std() / math.sqrt(runs)
