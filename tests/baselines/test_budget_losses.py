"""Losses at budgets: computed once, kept as they arrive, and the same over a pool."""

from dataclasses import replace

import pytest
import torch

from metaopt import tasks
from metaopt.baselines import budget_runs
from metaopt.baselines.budget_losses import BudgetSetup, budget_losses
from metaopt.baselines.budget_runs import BudgetRuns, compute
from metaopt.baselines.store import Store
from metaopt.cluster import LocalPool
from metaopt.errors import WorkerLostError


def spec(seed=1):
    return tasks.get("quadratic").sample("5x5-none", seed, (24, 24))


def some(**changes):
    return replace(BudgetRuns(spec(), ("constant", "cosine"), (1e-3, 1e-2), (3, 4, 5), (0, 8, 24)), **changes)


@pytest.fixture
def store(tmp_path):
    return Store((tmp_path,))


def test_they_are_computed_once(store, monkeypatch):
    runs = some()
    calls = []
    monkeypatch.setattr(budget_runs, "compute", lambda one: calls.append(one) or compute(one))
    first = budget_losses([runs, runs], store)
    again = budget_losses([some()], Store(store.folders))
    assert len(calls) == 1
    assert (first[0] == first[1]).all()
    assert (again[0] == first[0]).all(), "fresh and stored losses are equal, both float32"


def test_a_pool_gives_the_same(store, tmp_path):
    wanted = [some(), some(spec=spec(seed=5))]
    here = budget_losses(wanted, store)
    elsewhere = Store((tmp_path / "other",))
    with LocalPool(BudgetSetup()) as pool:
        there = budget_losses(wanted, elsewhere, pool)
    assert all((one == two).all() for one, two in zip(here, there, strict=True))
    assert all(elsewhere.get(runs) is not None for runs in wanted)


def test_a_set_that_fails_three_times_is_an_error(store, monkeypatch):
    def broken(runs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(budget_runs, "compute", broken)
    with LocalPool(BudgetSetup()) as pool, pytest.raises(WorkerLostError, match="no memory"):
        budget_losses([some()], store, pool)


def test_a_folder_that_cannot_be_written_costs_nothing_but_a_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    (losses,) = budget_losses([some()], Store((blocked,)))
    assert losses.shape == (3, 2, 2, 3)
    assert "cannot be kept" in caplog.text


def test_threads_are_given_back(store):
    before = torch.get_num_threads()
    budget_losses([some(budgets=(1,))], store)
    assert torch.get_num_threads() == before
