"""References: planted curves give known rewards, the right rate is best, and real tasks are the same alone and together."""

import math
from dataclasses import replace

import numpy as np
import pytest

from metaopt import tasks
from metaopt.baselines.budget_losses import budget_losses
from metaopt.baselines.budget_runs import RATES
from metaopt.baselines.power_curve import NON_FINITE, NON_MONOTONE
from metaopt.baselines.reference import (
    AGAINST,
    DEFAULT_RATE,
    degenerate,
    make_reference,
    reference,
    reference_runs,
    references,
    score,
)
from metaopt.baselines.store import Store
from metaopt.errors import ConfigError, TaskError
from metaopt.tasks import TaskSpec


def spec(horizon=200, seed=1, family="quadratic", template="5x5-none") -> TaskSpec:
    return tasks.get(family).sample(template, seed, (horizon, horizon))


RUNS = reference_runs(spec())
DEFAULT = RATES.index(DEFAULT_RATE)


def fraction():
    return np.array(RUNS.budgets[1:]) / RUNS.spec.horizon


def planted(exponents=(-1.0, -1.0, -0.5, 0.5, 1.0), ends=(0.9, 0.8, 0.5, 0.2, 0.3), start=1.5):
    """Losses [B, 1, R, K] of five curves, with seeds that differ by an offset of mean 0."""
    t = fraction()
    curves = np.stack([end + 0.1 * (t**-k - 1) / k for k, end in zip(exponents, ends, strict=True)], axis=1)
    losses = np.concatenate([np.full((1, 5), start), curves])
    return losses[:, None, :, None] + np.array([-0.01, 0.0, 0.01])


def test_planted_curves_score_as_they_were_planted():
    found = make_reference(RUNS, planted())
    times = np.array([0.1, 0.25, 0.5, 1.0])
    assert score(0.5 + 0.1 * (times**0.5 - 1) / -0.5, found, "default") == pytest.approx(np.log(times), abs=1e-6)
    assert score(0.2 + 0.1 * (times**-0.5 - 1) / 0.5, found, "best_constant") == pytest.approx(np.log(times), abs=1e-6)
    assert float(score(0.2 + 0.1 * (2**-0.5 - 1) / 0.5, found, "best_constant")) == pytest.approx(math.log(2), abs=1e-6)


def test_the_best_rate_is_that_of_the_least_final_loss():
    found = make_reference(RUNS, planted())
    assert found.best_rate == RATES[3]
    assert found.finals == pytest.approx((0.9, 0.8, 0.5, 0.2, 0.3))
    assert found.start == pytest.approx(1.5)
    assert found.best_constant.k == pytest.approx(0.5, abs=1e-6)
    assert found.default.k == pytest.approx(-0.5, abs=1e-6)


def test_the_summary_is_largest_median_and_mean():
    assert make_reference(RUNS, planted()).summary() == pytest.approx((0.9, 0.5, 0.54))


def test_a_rate_that_blows_up_is_not_best_and_counts_as_having_learned_nothing():
    losses = planted()
    losses[-2:, 0, 4] = np.inf
    losses[-1, 0, 3, 1] = np.nan
    found = make_reference(RUNS, losses)
    assert found.best_rate == DEFAULT_RATE
    assert found.summary() == pytest.approx((1.5, 0.9, (0.9 + 0.8 + 0.5 + 1.5 + 1.5) / 5))
    assert found.curve("best_constant") == found.default


def test_where_all_blow_up_there_is_no_reference():
    found = make_reference(RUNS, np.where(np.arange(len(RUNS.budgets))[:, None, None, None] > 3, np.nan, planted()))
    assert found.default.degenerate == found.best_constant.degenerate == NON_FINITE
    assert found.summary() == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.parametrize(("c", "e", "tolerance"), [(2.0**-7, 0.0, 0.0), (2.0**9, 0.0, 0.0), (10.0, 0.0, 1e-9), (0.3, -5.0, 1e-9)])
def test_scores_do_not_see_the_unit_of_the_loss(c, e, tolerance):
    asked = np.array([0.21, 0.3, 0.45, 0.8, 1.2])
    for against in AGAINST:
        before = score(asked, make_reference(RUNS, planted()), against)
        after = score(c * asked + e, make_reference(RUNS, c * planted() + e), against)
        assert after == pytest.approx(before, abs=tolerance, rel=0)


def test_failures_have_the_worst_score():
    found = make_reference(RUNS, planted())
    assert score([np.nan, np.inf, 1e30, 1.5], found, "best_constant").tolist() == [-3.0] * 4


def test_degenerate_references_are_counted_and_refused():
    rising = planted()[::-1].copy()
    found = [make_reference(RUNS, planted()), make_reference(RUNS, rising), make_reference(RUNS, rising)]
    assert degenerate(found, "default") == {NON_MONOTONE: 2}
    assert degenerate(found[:1], "best_constant") == {}
    with pytest.raises(TaskError, match="leave the task out and count it"):
        score(0.5, found[1], "default")


def test_an_unknown_reference():
    with pytest.raises(ConfigError, match="'best' is unknown"):
        score(0.5, make_reference(RUNS, planted()), "best")


@pytest.mark.parametrize("horizon", [64, 100, 333, 1000])
def test_budgets_are_log_spaced_from_where_rewards_are_clipped(horizon):
    runs = reference_runs(spec(horizon))
    assert runs.budgets[0] == 0
    assert runs.budgets[-1] == horizon
    assert len(runs.budgets) in (14, 15)
    assert runs.budgets[1] / horizon == pytest.approx(math.exp(-3), abs=0.5 / horizon)
    gaps = np.diff(np.log(runs.budgets[1:]))
    assert gaps.max() < 3 * gaps.min() + 0.2


def test_short_horizons_have_fewer_budgets_and_very_short_ones_none():
    assert reference_runs(spec(4)).budgets == (0, 1, 2, 3, 4)
    with pytest.raises(ConfigError, match="at least 4 inner steps, got 3"):
        reference_runs(spec(3))


def test_seeds_are_those_of_tuning_and_differ_between_tasks():
    one, two = reference_runs(spec(seed=1)), reference_runs(spec(seed=2))
    assert len(set(one.seeds) | set(two.seeds)) == 6
    assert reference_runs(spec(seed=1)) == one


def test_a_task_has_the_same_reference_alone_and_with_others(tmp_path):
    specs = [spec(64, seed) for seed in (1, 2)]
    together = references(specs, Store((tmp_path / "a",)))
    alone = [reference(one, Store((tmp_path / "b",))) for one in reversed(specs)][::-1]
    assert together == alone


def test_a_real_baseline_scores_about_zero_against_itself(tmp_path):
    """Its own losses along its curve are worth the budgets that they were reached at."""
    store = Store((tmp_path,))
    one = spec(128, family="digits_mlp", template="16-tanh-b32")
    found = reference(one, store)
    assert degenerate([found], "default") == degenerate([found], "best_constant") == {}
    losses = budget_losses([reference_runs(one)], store)[0][:, 0].mean(axis=-1)
    budgets = np.array(reference_runs(one).budgets)
    late = budgets >= 32
    for against, rate in (("default", DEFAULT_RATE), ("best_constant", found.best_rate)):
        own = losses[late, RATES.index(rate)]
        assert score(own, found, against) == pytest.approx(np.log(budgets[late] / 128), abs=0.12)
    assert float(score(losses[-1].min(), found, "default")) == pytest.approx(math.log(2)), (
        "a better rate is worth more than twice the steps"
    )


def test_a_longer_horizon_is_another_reference():
    assert reference_runs(replace(spec(), horizon=201)).to_json() != RUNS.to_json()
