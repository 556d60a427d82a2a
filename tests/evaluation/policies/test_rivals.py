"""Baselines on the seeds of a policy's runs."""

import dataclasses

import pytest

from metaopt.baselines.budget_runs import RATES
from metaopt.baselines.grid_schedules import GRID_SCHEDULES
from metaopt.baselines.store import Store
from metaopt.baselines.tuning import evaluation_seeds
from metaopt.evaluation.policies import TaskSet, expected_cost
from metaopt.evaluation.policies.rivals import DEFAULT, GRID, WIDE_RATES, bucket_runs, rivals, wanted_runs
from tests.evaluation.policies.made_policies import BUCKET, SMALL


def test_the_grid_has_35_runs_and_the_default_is_one():
    assert len(GRID) == len(set(GRID)) == len(GRID_SCHEDULES) * len(RATES) == 35
    assert GRID.index(DEFAULT) == RATES.index(1e-3)


def test_runs_have_the_seeds_of_every_evaluation(baseline_store):
    [one], rejected = bucket_runs(SMALL, 2, baseline_store, None)
    assert one.specs == tuple(BUCKET.specs())
    assert one.seeds == tuple(evaluation_seeds(spec, 0, 2) for spec in one.specs)
    assert not any(rejected.values())
    assert set(rejected) == {"default", "best_constant"}
    assert all(cap >= 10.0 for cap in one.caps)


def test_with_and_without_the_grid_they_are_the_same_runs(baseline_store):
    specs = BUCKET.specs()
    for full, light in zip(rivals(specs, 2, True, baseline_store, None), rivals(specs, 2, False, baseline_store, None), strict=True):
        assert light.cosine == pytest.approx(full.cosine, rel=1e-5)
        assert light.wide == pytest.approx(full.wide, rel=1e-5)
        assert light.default == pytest.approx(full.default, rel=1e-5)
        assert full.wide.shape == (len(WIDE_RATES), 2)
        assert full.wide[: len(RATES)].tolist() == full.cosine.tolist()
        assert light.grid is None
        assert full.grid.shape == (35, 2)
        assert full.grid[GRID.index(DEFAULT)] == pytest.approx(full.default)
        assert full.grid[GRID.index("cosine 0.003")] == pytest.approx(full.cosine[RATES.index(3e-3)])


def test_other_budgets_go_through_the_horizons_own_loss(baseline_store):
    for one in rivals(BUCKET.specs(), 2, True, baseline_store, None):
        at = one.cosine_budgets.fractions.tolist().index(1.0)
        assert one.cosine_budgets.losses[at] == pytest.approx(one.cosine, rel=1e-5)
        assert one.wide_budgets.losses[at] == pytest.approx(one.wide, rel=1e-5)
        assert one.wide_budgets.losses[:, : len(RATES)].tolist() == one.cosine_budgets.losses.tolist()
        at = one.default_budgets.fractions.tolist().index(1.0)
        assert one.default_budgets.losses[at, 0] == pytest.approx(one.default, rel=1e-5)


@pytest.mark.parametrize("full", [True, False])
def test_what_is_wanted_is_what_is_computed(full, tmp_path):
    one = TaskSet("one", (dataclasses.replace(BUCKET, draws=BUCKET.draws[:1], horizon=10),), full)
    store = Store((tmp_path,))
    bucket_runs(one, 2, store, None)
    rivals(one.buckets[0].specs(), 2, full, store, None)
    wanted = wanted_runs(one, 2)
    assert all(store.get(runs) is not None for runs in wanted)
    assert len(list(tmp_path.iterdir())) == len(wanted) == (21 if full else 3)
    cost = expected_cost([one], 2, store)
    assert (cost.programs, cost.kept) == (len(wanted), len(wanted))
    assert cost.inner_steps == 6 * 10
    missing = expected_cost([one], 2, Store((tmp_path / "none",)))
    assert missing.kept == 0
    assert missing.inner_steps == 60 + sum(runs.budgets[-1] for runs in wanted)
    assert missing.text(2).startswith(f"0 of {len(wanted)} programs of baselines are kept")
