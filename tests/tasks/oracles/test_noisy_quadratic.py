"""The noisy quadratic laboratory against closed forms, differences, simulation and published tables."""

import numpy as np
import pytest

from metaopt.tasks.oracles.noisy_quadratic import (
    NoisyQuadratic,
    block_horizon_schedule,
    excess_loss,
    expected_hypergradient,
    final_loss,
    greedy_schedule,
    hypergradient_descent_schedule,
    moments,
    momentum_moments,
    optimal_schedule,
    schedule_gradient,
    spectrum_problem,
    stationary_moments,
)

HUNDRED = spectrum_problem(np.logspace(0, -3, 100), 100)
STEPS = 250
TINY = NoisyQuadratic(np.array([1.0, 0.1, 0.01]), 1 / np.array([1.0, 0.1, 0.01]), np.ones(3))


def test_four_steps_on_three_directions():
    rates = np.array([0.5, 0.4, 0.3, 0.2])
    assert final_loss(TINY, rates) == pytest.approx(0.14697631589953522, rel=1e-14)
    expected = [-0.0037961929, 0.0268702786, 0.0343810296, -0.0114754655]
    np.testing.assert_allclose(schedule_gradient(TINY, rates), expected, atol=1e-10)
    greedy = greedy_schedule(TINY, 4)
    np.testing.assert_allclose(greedy, [0.5022621937, 0.3371075235, 0.2545713972, 0.2050276336], atol=1e-10)
    assert final_loss(TINY, greedy) == pytest.approx(0.1454096403158578, rel=1e-14)


def test_the_adjoint_is_the_derivative():
    rates = np.linspace(0.9, 0.1, 12)
    for t in range(12):
        up, down = rates.copy(), rates.copy()
        up[t], down[t] = up[t] + 1e-6, down[t] - 1e-6
        assert schedule_gradient(HUNDRED, rates)[t] == pytest.approx((final_loss(HUNDRED, up) - final_loss(HUNDRED, down)) / 2e-6, rel=1e-6)


def test_in_one_dimension_greedy_is_optimal_and_known():
    one = NoisyQuadratic(np.array([2.0]), np.array([3.0]), np.array([5.0]))
    known = 1.0 / (2.0 * (np.arange(20) + 1.6))
    np.testing.assert_allclose(greedy_schedule(one, 20), known, rtol=1e-12)
    np.testing.assert_allclose(optimal_schedule(one, 20, start=np.full(20, 0.1)), known, rtol=1e-5)
    after = moments(one, known)[:, 0]
    np.testing.assert_allclose(1 / after, 1 / 5 + np.arange(21) / 3, rtol=1e-12)


@pytest.mark.parametrize(
    ("horizon", "loss"), [(1, 0.083081), (2, 0.079588), (5, 0.067949), (10, 0.050402), (25, 0.028927), (50, 0.016823), (100, 0.012603)]
)
def test_losses_of_planners_who_look_ahead(horizon, loss):
    assert final_loss(HUNDRED, block_horizon_schedule(HUNDRED, STEPS, horizon)) == pytest.approx(loss, abs=1e-6)


def test_the_optimal_schedule_and_the_best_constant_one():
    assert excess_loss(HUNDRED, HUNDRED.start) == pytest.approx(7.411847, abs=1e-6)
    best = optimal_schedule(HUNDRED, STEPS)
    assert final_loss(HUNDRED, best) == pytest.approx(0.0101288, abs=1e-7)
    assert (best[:151] == 2.0).all()
    np.testing.assert_allclose(best[[200, 225, 240, 249]], [0.2337, 0.0733, 0.0444, 0.0350], atol=5e-5)
    assert final_loss(HUNDRED, np.full(STEPS, 0.525)) == pytest.approx(0.043782, abs=1e-6)
    assert final_loss(HUNDRED, greedy_schedule(HUNDRED, STEPS)) > final_loss(HUNDRED, np.full(STEPS, 0.525)), "short-horizon bias"


@pytest.mark.parametrize("start", [0.5, 1.0, 1.5])
def test_the_bounded_optimum_does_not_depend_on_the_start(start):
    found = optimal_schedule(HUNDRED, STEPS, start=np.full(STEPS, start))
    assert final_loss(HUNDRED, found) == pytest.approx(final_loss(HUNDRED, optimal_schedule(HUNDRED, STEPS)), rel=1e-9)


def test_the_optimum_satisfies_its_first_order_conditions():
    best = optimal_schedule(HUNDRED, STEPS)
    gradient, inside = schedule_gradient(HUNDRED, best), best < 2.0
    assert np.abs(gradient[inside]).max() < 1e-6
    assert (gradient[~inside] <= 1e-9).all(), "at the bound the loss would fall further"


@pytest.mark.parametrize(
    ("hyper_rate", "rate", "loss"),
    [(1e-3, 0.001, 0.1233), (1e-3, 0.1, 0.0931), (1e-3, 1.0, 0.0602), (1e-2, 0.001, 0.0472), (1e-2, 0.1, 0.0468), (1e-2, 1.0, 0.0541)],
)
def test_losses_of_hypergradient_descent_in_expectation(hyper_rate, rate, loss):
    assert final_loss(HUNDRED, hypergradient_descent_schedule(HUNDRED, STEPS, rate, hyper_rate)) == pytest.approx(loss, abs=5e-5)


@pytest.mark.parametrize(
    ("curvature", "batch", "greedy", "best"),
    [("log", 1, 4.2108, 2.3718), ("log", 1000, 0.3554, 0.0426), ("inverse", 10, 0.9153, 0.2888), ("inverse", 100, 0.4844, 0.1375)],
)
def test_losses_on_a_thousand_directions(curvature, batch, greedy, best):
    problem = spectrum_problem(np.logspace(0, -3, 1000) if curvature == "log" else 1 / np.arange(1.0, 1001.0), batch)
    assert final_loss(problem, greedy_schedule(problem, STEPS)) == pytest.approx(greedy, abs=5e-5)
    assert final_loss(problem, optimal_schedule(problem, STEPS)) == pytest.approx(best, abs=5e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_stationary_moments_are_the_fixed_point(momentum):
    steep, rates = spectrum_problem(np.logspace(0, -1, 20), 10), np.full(500, 0.3)
    np.testing.assert_allclose(momentum_moments(steep, rates, momentum)[-1], stationary_moments(steep, 0.3, momentum), rtol=1e-6)


def test_without_momentum_both_recursions_agree():
    rates = np.linspace(1.0, 0.1, 30)
    np.testing.assert_allclose(momentum_moments(HUNDRED, rates, 0.0), moments(HUNDRED, rates), rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_simulated_runs_have_these_moments(momentum):
    generator, runs, rates = np.random.default_rng(0), 40_000, np.array([0.5, 0.4, 0.3, 0.2, 0.4])
    w = generator.normal(size=(runs, 3))
    v = np.zeros_like(w)
    for rate in rates:
        v = momentum * v + TINY.curvature * (w - generator.normal(size=w.shape) * np.sqrt(TINY.noise))
        w = w - rate * v
    error = (w**2).std(axis=0) / np.sqrt(runs)
    assert (np.abs((w**2).mean(axis=0) - momentum_moments(TINY, rates, momentum)[-1]) < 4 * error).all()


def test_a_one_step_method_lowers_every_stable_rate_for_ever():
    """The short-horizon bias: at stationarity the hypergradient points down whatever the rate."""
    for rate in (1e-4, 0.01, 0.5, 1.9):
        step = rate * HUNDRED.curvature
        known = -(step * HUNDRED.curvature**2 * HUNDRED.noise / (2 - step)).sum()
        found = expected_hypergradient(HUNDRED, stationary_moments(HUNDRED, rate), rate)
        assert found == pytest.approx(known, rel=1e-9)
        assert found < 0
    [greedy] = greedy_schedule(HUNDRED, 1)
    assert expected_hypergradient(HUNDRED, HUNDRED.start, greedy) == pytest.approx(0.0, abs=1e-12)


def test_bad_problems_are_refused():
    with pytest.raises(ValueError, match="vectors of one length"):
        NoisyQuadratic(np.ones(3), np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="curvature must be > 0"):
        NoisyQuadratic(np.zeros(3), np.ones(3), np.ones(3))
