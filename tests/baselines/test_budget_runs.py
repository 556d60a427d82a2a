"""Runs at budgets: equal to the usual runner's, and filed under all that determines them."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from metaopt import inner, learners, tasks
from metaopt.baselines.budget_runs import BudgetRuns, compute
from metaopt.baselines.store import Store
from metaopt.errors import ConfigError


def spec(family="quadratic", template="5x5-none", horizon=24, seed=1):
    return tasks.get(family).sample(template, seed, (horizon, horizon))


def some(**changes):
    return replace(BudgetRuns(spec(), ("constant", "cosine"), (1e-3, 1e-2), (3, 4, 5), (0, 8, 24)), **changes)


@pytest.fixture
def store(tmp_path):
    return Store((tmp_path,))


def test_losses_are_those_of_the_usual_runner():
    runs = some(schedules=("constant",))
    losses = runs.shaped(compute(runs))
    assert losses.shape == (3, 1, 2, 3)
    for r, rate in enumerate(runs.rates):
        for k, seed in enumerate(runs.seeds):
            trace = inner.run(learners.get("adamw", lr=rate), {}, [tasks.build(runs.spec)], [seed], 24, eval_every=8)
            assert losses[:, 0, r, k] == pytest.approx(trace.eval_loss[[0, 1, 3], 0].numpy(), rel=1e-5)


def test_losses_are_of_the_half_that_scores_and_have_no_cap():
    runs = BudgetRuns(spec("digits_mlp", "16-tanh-b32"), ("constant",), (100.0,), (3,), (0, 24))
    task = tasks.build(runs.spec)
    trace = inner.run(learners.get("adamw", lr=100.0), {}, [task], [3], 24)
    params = {name: value[0] for name, value in trace.carry["params"].items()}
    rows = {name: value[1::2] for name, value in task.heldout(torch.tensor(0), torch.tensor(0)).items()}
    expected = task.program.normalise(task.numbers, task.loss(params, rows)).item()
    assert expected > task.program.cap
    assert compute(runs).heldout[-1, 0] == pytest.approx(expected, rel=1e-4)


def test_what_blows_up_is_not_finite_and_said_so():
    curves = compute(some(schedules=("constant",), rates=(1e-3, 1e25)))
    assert curves.diverged.tolist() == [False] * 3 + [True] * 3


def test_schedules_end_at_the_horizon_of_the_task_and_not_of_the_run():
    """A cosine is at 0 past its horizon: nothing moves any more."""
    runs = some(budgets=(24, 30, 40))
    losses = runs.shaped(compute(runs))
    assert (losses[1:, 1] == losses[0, 1]).all()
    assert (losses[1:, 0] != losses[0, 0]).all()


def test_schedules_rates_and_seeds_are_where_they_belong():
    runs = some(schedules=("cosine", "linear", "constant"))
    losses = runs.shaped(compute(runs))
    assert (losses[0] == losses[0, :1, :1]).all(), "the same start for each seed"
    for s, schedule in enumerate(runs.schedules):
        for r, rate in enumerate(runs.rates):
            alone = some(schedules=(schedule,), rates=(rate,))
            assert losses[:, s, r] == pytest.approx(alone.shaped(compute(alone))[:, 0, 0], rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": spec(seed=2)},
        {"spec": replace(spec(), horizon=25)},
        {"schedules": ("constant",)},
        {"rates": (1e-3, 2e-2)},
        {"seeds": (3, 4, 6)},
        {"budgets": (0, 9, 24)},
    ],
)
def test_all_that_determines_them_is_in_the_key(changes, store):
    store.put(some(), compute(some()))
    assert store.get(some()) is not None
    assert store.get(some(**changes)) is None


def test_the_key_names_the_half_the_optimizer_and_the_code():
    key = json.loads(some().to_json())
    assert key["half"] == "scoring"
    assert key["optimizer"]["options"]["beta2"] == 0.999
    assert len(key["code"]) == 3


def test_runs_travel():
    copy = pickle.loads(pickle.dumps(some()))  # noqa: S301
    assert copy == some()
    assert copy.to_json() == some().to_json()


@pytest.mark.parametrize("budgets", [(), (3, 2), (2, 2), (-1, 4)])
def test_bad_budgets(budgets):
    with pytest.raises(ConfigError, match="budgets must rise"):
        some(budgets=budgets)


def test_an_unknown_schedule():
    with pytest.raises(ConfigError, match="'cosin' is none of constant, multi_step"):
        some(schedules=("cosin",))


def test_work_counts_inner_steps():
    assert some().work == 24 * 12
    assert np.isfinite(compute(some()).heldout).all()
