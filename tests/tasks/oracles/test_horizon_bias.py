"""The tables of the laboratory, to the digits that are published."""

import numpy as np
import pytest

from metaopt.tasks.oracles.horizon_bias import (
    HORIZONS,
    NQM_100,
    STEPS,
    best_constant,
    best_power_decay,
    losses_of,
    power_decay,
    rules,
    spectrum_rows,
)
from metaopt.tasks.oracles.noisy_quadratic import NoisyQuadratic, excess_loss, final_loss, moments, schedule_gradient

PLANNED = (0.083081, 0.079588, 0.067949, 0.050402, 0.028927, 0.016823, 0.012603, 0.0101288)
POWER = {10: (4.1, 0.0819), 25: (2.8, 0.0490), 50: (2.2, 0.0363), 100: (1.7, 0.0288), 250: (1.3, 0.0266)}
DESCENT = (0.1233, 0.0931, 0.0602, 0.0472, 0.0468, 0.0541)


@pytest.fixture(scope="module")
def found():
    return rules()


def test_the_horizon_curve_to_the_printed_digits_and_falling(found):
    planners = [rule for rule in found if rule.family == "block"]
    assert [rule.horizon for rule in planners] == list(HORIZONS)
    assert [rule.final for rule in planners] == pytest.approx(PLANNED, abs=1e-6)
    assert (np.diff([rule.final for rule in planners]) < 0).all(), "looking further ahead never hurts here"
    assert (np.diff([rule.rates.mean() for rule in planners]) > 0).all(), "short-sighted planners take small steps"
    means = {rule.horizon: rule.rates.mean() for rule in planners}
    assert [means[horizon] for horizon in (1, 25, 250)] == pytest.approx([0.164, 0.444, 1.423], abs=5e-4)


def test_every_planner_is_best_at_its_own_horizon(found):
    """The bias is not a failure to minimise: at step K nobody is below the one who planned K steps."""
    for horizon in HORIZONS:
        losses = {rule.name: rule.losses[horizon] for rule in found}
        own = next(rule for rule in found if rule.family == "block" and rule.horizon == horizon)
        assert min(losses.values()) >= losses[own.name] * (1 - 1e-9)


def test_the_best_constant_and_what_it_says_of_greedy(found):
    [constant] = [rule for rule in found if rule.family == "constant"]
    assert constant.rates[0] == pytest.approx(0.525, abs=1e-12)
    assert constant.final == pytest.approx(0.043782, abs=1e-6)
    assert found[0].name == "greedy"
    assert found[0].final > constant.final


def test_decays_tuned_at_short_horizons_fall_faster_and_end_worse(found):
    tuned = {rule.horizon: rule for rule in found if rule.family == "power"}
    settings = best_power_decay(NQM_100, list(POWER))
    for horizon, (power, loss) in POWER.items():
        assert settings[horizon] == pytest.approx((2.0, power))
        assert tuned[horizon].final == pytest.approx(loss, abs=5e-5)
    assert (np.diff([rule.final for rule in tuned.values()]) < 0).all()


def test_hypergradient_descent_in_expectation(found):
    assert [rule.final for rule in found if rule.family == "descent"] == pytest.approx(DESCENT, abs=5e-5)


THOUSAND = {
    ("logspace", 1): (4.2108, 4.4725, 2.3718),
    ("logspace", 10): (1.8275, 1.4081, 0.4197),
    ("logspace", 100): (0.8177, 0.4318, 0.1005),
    ("logspace", 1000): (0.3554, 0.1326, 0.0426),
    ("1/i", 10): (0.9153, 0.4871, 0.2888),
    ("1/i", 100): (0.4844, 0.1997, 0.1375),
}


@pytest.mark.parametrize("batch", [100, *(pytest.param(batch, marks=pytest.mark.slow) for batch in (1, 10, 1000))])
def test_a_thousand_directions_to_the_printed_digits(batch):
    for row in spectrum_rows([batch]):
        if known := THOUSAND.get((row.spectrum, batch)):
            assert (row.greedy, row.constant, row.optimal) == pytest.approx(known, abs=5e-5)


def test_many_schedules_at_once_are_those_one_by_one():
    schedules = np.random.default_rng(0).uniform(0.0, 1.5, size=(4, 7))
    together = losses_of(NQM_100, schedules)
    for losses, rates in zip(together, schedules, strict=True):
        np.testing.assert_allclose(losses, excess_loss(NQM_100, moments(NQM_100, rates))[1:], rtol=1e-13)


def test_the_best_constant_is_where_the_derivative_changes_its_sign():
    steep = NoisyQuadratic(np.array([4.0, 0.4]), np.array([1.0, 2.0]), np.array([3.0, 3.0]))
    rate = best_constant(steep, 12)
    below, above = (schedule_gradient(steep, np.full(12, factor * rate)).sum() for factor in (0.97, 1.03))
    assert below < 0 < above
    assert 0 < rate < steep.largest_rate


def test_a_power_decay_begins_at_its_start_and_halves_by_its_power():
    rates = power_decay(2.0, 1.0, 126)
    assert rates[0] == 2.0
    assert rates[125] == pytest.approx(2.0 / 3.0)
    assert (power_decay(0.7, 0.0, 9) == 0.7).all()


def test_families_and_short_runs_can_be_chosen():
    short = rules(steps=20, only=["block", "power"])
    assert {rule.family for rule in short} == {"block", "power"}
    assert [rule.horizon for rule in short if rule.family == "block"] == [1, 2, 5, 10, 20]
    assert [rule.horizon for rule in short if rule.family == "power"] == [10]
    assert all(len(rule.losses) == 21 and rule.losses[0] == pytest.approx(7.411847, abs=1e-6) for rule in short)
    assert all(rule.final == pytest.approx(final_loss(NQM_100, rule.rates)) for rule in short)
    assert STEPS == 250
