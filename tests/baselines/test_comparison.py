"""Comparisons: budgets of planted curves come back and say when they are censored, and runs are those that their names say."""

from dataclasses import replace

import numpy as np
import pytest

from metaopt import inner, tasks
from metaopt.baselines import evaluation_seeds
from metaopt.baselines.budget_runs import RATES
from metaopt.baselines.comparison import (
    COSINE_FRACTIONS,
    Budgets,
    cosine_budgets,
    default_budgets,
    grid_runs,
    grids,
    steps_to_equal_loss,
)
from metaopt.baselines.grid_schedules import GRID_SCHEDULES
from metaopt.baselines.store import Store
from metaopt.errors import ConfigError
from metaopt.learners.learner import GradientLearner, Schedule
from metaopt.learners.update_rules import get_rule

T = np.array(COSINE_FRACTIONS)


def spec(horizon=32, seed=1):
    return tasks.get("quadratic").sample("5x5-none", seed, (horizon, horizon))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store((tmp_path_factory.mktemp("curves"),))


def alone(one, seed, rate, schedule, steps):
    """The final loss of one run of the usual learner; a quadratic has the same objective for both halves."""
    trace = inner.run(GradientLearner(get_rule("adamw", lr=rate), schedule), {}, [tasks.build(one)], [seed], steps, eval_every=steps)
    return float(trace.eval_loss[-1, 0])


def test_a_logarithmic_curve_is_inverted_exactly():
    asked = np.array([0.25, 0.3, 0.6, 1.0, 1.3, 2.0])
    found = steps_to_equal_loss(1 - 0.2 * np.log(asked), T, 1 - 0.2 * np.log(T))
    assert found.factor == pytest.approx(asked, rel=1e-12)
    assert not found.at_most.any()
    assert not found.at_least.any()


def test_between_budgets_it_is_linear_in_the_logarithm():
    assert steps_to_equal_loss(0.75, [0.5, 2.0], [1.0, 0.5]).factor == pytest.approx(1.0)
    assert steps_to_equal_loss([1.0, 0.5], [0.5, 2.0], [1.0, 0.5]).factor.tolist() == pytest.approx([0.5, 2.0])


def test_both_ends_are_censored_and_say_so():
    found = steps_to_equal_loss([0.4, 0.5, 0.7, 1.0, 1.1, np.inf, np.nan, -np.inf], [0.5, 2.0], [1.0, 0.5])
    assert found.factor.tolist() == pytest.approx([2.0, 2.0, 2 ** (0.6 * 2 - 1), 0.5, 0.5, 0.5, 0.5, 0.5])
    assert found.at_least.tolist() == [True] + [False] * 7
    assert found.at_most.tolist() == [False] * 4 + [True] * 4


def test_a_longer_budget_is_never_worse():
    """Losses 0.6 and 0.55 after a lucky 0.5 count as 0.5, and what is level is reached at its first budget."""
    found = steps_to_equal_loss([0.75, 0.5, 0.45, 0.4], [0.25, 0.5, 1.0, 2.0, 4.0], [1.0, 0.5, 0.6, 0.55, 0.4])
    assert found.factor == pytest.approx([0.25 * 2**0.5, 0.5, 2 * 2**0.5, 4.0])


@pytest.mark.parametrize(("c", "e"), [(1e-4, 0.0), (7.0, -3.0)])
def test_units_of_the_loss_do_not_matter(c, e):
    asked, losses = np.linspace(0.1, 1.2, 23), np.array([1.0, 0.9, 0.55, 0.56, 0.3, 0.2, 0.19])
    assert steps_to_equal_loss(c * asked + e, T, c * losses + e).factor == pytest.approx(steps_to_equal_loss(asked, T, losses).factor)


def test_a_lower_loss_never_needs_less():
    losses = np.array([1.0, 0.9, 0.55, 0.56, 0.3, 0.2, 0.19])
    found = steps_to_equal_loss(np.linspace(1.5, 0.0, 3001), T, losses)
    assert (np.diff(found.factor) >= 0).all()
    assert found.factor[[0, -1]].tolist() == pytest.approx([0.25, 2.0])


def test_budgets_at_which_the_baseline_blew_up_are_none():
    one = steps_to_equal_loss([0.7, 2.0], T, [np.nan, np.inf, 1.0, 0.5, 0.4, np.nan, 0.3])
    other = steps_to_equal_loss([0.7, 2.0], T[[2, 3, 4, 6]], [1.0, 0.5, 0.4, 0.3])
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    nowhere = steps_to_equal_loss([0.7, np.nan], T, np.full(7, np.nan))
    assert (nowhere.factor.tolist(), nowhere.at_least.tolist(), nowhere.at_most.tolist()) == ([2.0, 0.25], [True, False], [False, True])


def test_a_single_budget():
    found = steps_to_equal_loss([0.4, 0.5, 0.6], [1.0], [0.5])
    assert found.factor.tolist() == [1.0] * 3
    assert (found.at_least.tolist(), found.at_most.tolist()) == ([True, False, False], [False, False, True])


def test_shapes_are_kept():
    assert steps_to_equal_loss(np.full((2, 3), 0.7), T, np.linspace(1, 0, 7)).factor.shape == (2, 3)
    assert steps_to_equal_loss(0.7, T, np.linspace(1, 0, 7)).factor.shape == ()


@pytest.mark.parametrize(("fractions", "losses"), [([1.0, 0.5], [1, 2]), ([0.0, 1.0], [1, 2]), ([0.5, 1.0], [1.0]), ([], [])])
def test_bad_budgets(fractions, losses):
    with pytest.raises(ConfigError, match="fractions must rise"):
        steps_to_equal_loss(0.5, fractions, losses)


def test_the_best_rate_of_each_budget_is_chosen_by_its_mean():
    losses = np.array([[[1.0, 3.0], [2.1, 2.1]], [[0.9, 0.8], [0.1, np.inf]], [[np.nan, 0.1], [0.7, 0.8]]])
    assert Budgets(np.array([0.5, 1.0, 2.0]), losses).best().tolist() == [[1.0, 3.0], [0.9, 0.8], [0.7, 0.8]]


def test_the_grid_has_every_schedule_and_rate_on_paired_seeds(store):
    one = spec()
    (losses,) = grids([one], store)
    assert losses.shape == (7, 5, 5)
    seeds = evaluation_seeds(one, 0, 5)
    assert [runs.seeds for runs in grid_runs(one)] == [(seed,) for seed in seeds]
    for schedule, own in (("constant", Schedule()), ("cosine", Schedule(0.0, 0.0)), ("cosine_to_tenth", Schedule(0.0, 0.1))):
        for r, k in ((2, 0), (4, 3)):
            expected = alone(one, seeds[k], RATES[r], own, 32)
            assert losses[GRID_SCHEDULES.index(schedule), r, k] == pytest.approx(expected, rel=1e-4)


def test_each_cosine_ends_at_its_own_budget(store):
    one = spec()
    (found,) = cosine_budgets([one], store)
    assert (found.fractions * 32).tolist() == [8, 11, 16, 23, 32, 45, 64]
    assert found.losses.shape == (7, 5, 5)
    (at_horizon,) = grids([one], store)
    assert found.losses[4] == pytest.approx(at_horizon[GRID_SCHEDULES.index("cosine")], rel=1e-4)
    seed = evaluation_seeds(one, 0, 5)[2]
    assert found.losses[0, 4, 2] == pytest.approx(alone(replace(one, horizon=8), seed, 1e-2, Schedule(0.0, 0.0), 8), rel=1e-4)


def test_a_cosine_at_the_horizon_needs_the_horizon(store):
    (found,) = cosine_budgets([spec()], store)
    best = found.best()
    assert (np.diff(best.mean(axis=1)) < 0).all(), "a noiseless bowl, far from its minimum"
    for k in range(5):
        assert float(steps_to_equal_loss(best[4, k], found.fractions, best[:, k]).factor) == pytest.approx(1.0)


def test_the_default_rate_is_a_curve_of_one_run(store):
    one = spec()
    (found,) = default_budgets([one], store)
    assert found.losses.shape == (len(found.fractions), 1, 5)
    assert found.fractions[[0, -1]].tolist() == [1 / 32, 8.0]
    (grid,) = grids([one], store)
    at_horizon = found.fractions.tolist().index(1.0)
    assert found.losses[at_horizon, 0] == pytest.approx(grid[0, RATES.index(1e-3)], rel=1e-4)


def test_horizons_that_cannot_be_divided():
    with pytest.raises(ConfigError, match="at least 8 inner steps, got 7"):
        cosine_budgets([spec(7)])
