"""One vectorised run of all rates and seeds equals the runs one by one, and torch's own optimizer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metaopt import baselines, seeds, tasks
from metaopt.baselines import CurveKey, Curves, Job, run_job
from metaopt.inner.step import _BATCH, _INIT
from metaopt.learners import SCHEDULES, GradientLearner, schedule_factor
from metaopt.learners.update_rules import get_rule


def quadratic(horizon=30, template="6x6-minimum"):
    return tasks.get("quadratic").sample(template, 3, (horizon, horizon))


def stack(name, rates, seeds, spec=None):
    baseline = baselines.get(name)
    return CurveKey(spec or quadratic(), baseline, tuple(baseline.at(rate) for rate in rates), seeds)


def test_a_stack_of_rates_and_seeds_equals_single_runs():
    key = stack("adamw", (0.001, 0.1), (5, 6, 7))
    together = run_job(key.job())
    for trial in key.trials:
        for i, seed in enumerate(key.seeds):
            alone = run_job(CurveKey(key.spec, key.baseline, (trial,), (seed,)).job())
            assert key.at(together, trial).heldout[:, i] == pytest.approx(alone.heldout[:, 0], rel=1e-4, abs=1e-7)


def test_curves_start_before_the_first_step_and_end_after_the_last():
    curves = run_job(stack("sgd", (0.1,), (1,), quadratic(97)).job())
    assert curves.steps[0] == 0
    assert curves.steps[-1] == 97
    assert curves.heldout.shape == curves.train.shape == (len(curves.steps), 1)


def test_scheduled_sgd_momentum_equals_torch():
    """The oracle for rule, schedule and batches at once: torch's SGD with a LambdaLR on the same batches."""
    spec, rate, seed = quadratic(), 0.05, 9
    curves = run_job(stack("sgd_momentum", (rate,), (seed,), spec).job())
    task = tasks.build(spec)
    run_key = torch.tensor(seed)
    params = {name: value.requires_grad_() for name, value in task.init(seeds.fold_in(run_key, _INIT)).items()}
    optimizer = torch.optim.SGD(params.values(), lr=rate, momentum=0.9)
    for t in range(spec.horizon):
        clock = torch.tensor(t)
        # The schedule scales the whole step, momentum included: with torch that is the group's own rate.
        optimizer.param_groups[0]["lr"] = rate * float(schedule_factor(SCHEDULES[baselines.SCHEDULE], clock, task.horizon))
        optimizer.zero_grad()
        task.loss(params, task.batch(seeds.fold_in(run_key, _BATCH), clock)).backward()
        optimizer.step()
    final = task.normalise(task.loss(params, task.heldout(run_key, torch.tensor(0))))
    assert curves.heldout[-1, 0] == pytest.approx(final.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["adamw", "schedule_free_adamw", "lbfgs"])
@pytest.mark.parametrize("horizon", [24, 97])
def test_the_end_is_the_same_with_and_without_the_points_before_it(name, horizon):
    """Bit for bit, whether runs diverged included; the run without is what a search does."""
    baseline = baselines.get(name)
    spec = quadratic(horizon, "15x3-none" if baseline.full_batch else "6x6-minimum")
    whole = CurveKey(spec, baseline, (*baseline.trials(3), baseline.at(1e6)), (1, 2))
    end = replace(whole, keep="finals")
    every, last = run_job(whole.job()), end.kept(run_job(end.job()))
    assert np.array_equal(last.heldout, whole.kept(every).heldout[-1:])
    assert np.array_equal(last.diverged, every.diverged)
    assert last.steps.tolist() == [horizon]
    assert len(run_job(end.job()).steps) == 2


def test_joined_and_chosen_runs():
    curves = run_job(stack("sgd", (0.1,), (1, 2, 3)).job())
    parts = [curves.runs(slice(0, 1)), curves.runs(slice(1, 3))]
    assert np.array_equal(Curves.join(parts).heldout, curves.heldout)
    assert np.array_equal(Curves.join(parts).diverged, curves.diverged)


def test_too_large_a_rate_is_marked_as_diverged():
    curves = run_job(stack("sgd", (0.1, 1000.0), (1,)).job())
    assert curves.diverged.tolist() == [False, True]
    assert np.isfinite(curves.heldout).all(), "losses stop at the cap"


@pytest.mark.parametrize("name", baselines.variants())
def test_every_baseline_runs_its_search_as_one_program_and_some_trial_learns(name):
    baseline = baselines.get(name)
    spec = quadratic(24, "15x3-none" if baseline.full_batch else "6x6-minimum")
    key = CurveKey(spec, baseline, baseline.trials(15), (1,))
    finals = key.by_trial(run_job(key.job()))[:, -1, 0]
    first = float(run_job(CurveKey(spec, baseline, key.trials[:1], (1,)).job()).heldout[0, 0])
    assert finals.min() < 0.9 * first


def test_a_trial_in_the_stack_is_the_learner_with_those_hyperparameters():
    baseline = baselines.get("adamw+wsd")
    trial = baseline.trials(15)[7]
    stacked = run_job(CurveKey(quadratic(), baseline, baseline.trials(15), (3,)).job()).heldout[:, 7]
    alone = GradientLearner(get_rule("adamw", **trial.hyperparameters), SCHEDULES["wsd"])
    direct = run_job(Job(alone, {}, quadratic(), (3,))).heldout[:, 0]
    assert stacked == pytest.approx(direct, rel=1e-4, abs=1e-7)
