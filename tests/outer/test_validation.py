"""Validation on fixed particles: which ones, what is measured on them, and the paired difference with its standard error."""

import math
from dataclasses import replace

import pytest
import torch

from metaopt import inner, learners, tasks
from metaopt.cluster import LocalPool, WorkItem
from metaopt.config import load_config
from metaopt.outer.curriculum import template_cost
from metaopt.outer.shards import ShardSetup
from metaopt.outer.validation import Job, Measured, change_between, measure, measure_all, paired, report_jobs, selection_jobs
from metaopt.tasks.families.quadratic import QuadraticFamily

BASE = {"tasks": "[{family: quadratic, horizon: [25, 30]}]", "validation": "{every_steps: 1}", "outer.shards_per_step": "null"}
TEMPLATE = tasks.get("quadratic").templates("meta_valid")[0]
JOB = Job("quadratic", TEMPLATE, 20, (3, 4, 5), "train")


def config(validation: str = "", **changes: str):
    """Learnable Adam on quadratics; `validation` has further keys of its section, a double underscore stands for a dot."""
    replaced = {name.replace("__", "."): value for name, value in changes.items()}
    settings = BASE | {"validation": f"{{every_steps: 1, {validation}}}"} | replaced
    return load_config("learnable_adam", [f"{key}={value}" for key, value in settings.items()])


def theta(log_lr: float) -> dict[str, torch.Tensor]:
    return {**learners.get("learnable_adam").init_theta(0), "log_lr": torch.tensor(log_lr)}


def measured(*log_lrs: float, job: Job = JOB) -> Measured:
    return measure(learners.get("learnable_adam"), [theta(value) for value in log_lrs], job)


def test_equal_thetas_do_not_differ() -> None:
    same = change_between({"a": measured(-3.0, -3.0)})
    assert same.difference == pytest.approx(0.0, abs=1e-7)
    assert same.low == pytest.approx(same.high, abs=1e-6)
    assert same.before == pytest.approx(same.after, abs=1e-7)


def test_a_better_theta_lowers_and_a_worse_one_raises_it() -> None:
    better, worse = change_between({"a": measured(-9.0, -2.0)}), change_between({"a": measured(-2.0, -9.0)})
    assert better.high < 0 < worse.low
    assert better.difference == pytest.approx(better.after - better.before, abs=1e-6)
    assert (better.difference, better.before) == pytest.approx((-worse.difference, worse.after), abs=1e-6)
    assert change_between({"a": measured(-9.0, -2.0)}) == better  # nothing but its arguments


def test_a_theta_is_measured_the_same_alone_and_in_company() -> None:
    both, alone = measured(-3.0, -2.0), measured(-2.0)
    torch.testing.assert_close(both.loss[1:], alone.loss, rtol=1e-5, atol=1e-6)
    assert both.loss.shape == (2, 3)
    assert both.loss.dtype == torch.float64
    assert both.inner_steps == 2 * alone.inner_steps == 2 * 20 * 3


def test_heldout_is_the_mean_over_points_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    real, traces = inner.run, []
    monkeypatch.setattr(inner, "run", lambda *args, **options: traces.append(real(*args, **options)) or traces[-1])
    train, heldout = measured(-3.0), measured(-3.0, job=replace(JOB, objective="heldout"))
    torch.testing.assert_close(train.loss[0], traces[0].normalised.double().mean(0))
    steps = traces[1].eval_steps.tolist()
    assert (steps[0], steps[-1], len(steps)) == (0, 20, 11)  # every second of 20 steps
    torch.testing.assert_close(heldout.loss[0], traces[1].eval_loss[1:].double().mean(0))


def test_divergence_is_counted_and_capped() -> None:
    got = measured(-3.0, 20.0)
    assert got.diverged == (0, 3)
    assert torch.isfinite(got.loss).all()


def test_report_jobs_are_all_meta_valid_templates_at_the_longest_horizon() -> None:
    jobs = report_jobs(config(tasks="[{family: quadratic, horizon: [25, 30]}, {family: quadratic, horizon: [25, 50]}]"))
    assert {job.template for job in jobs} == set(tasks.get("quadratic").templates("meta_valid"))
    assert all((job.horizon, len(job.draws), job.objective) == (50, 4, "train") for job in jobs)
    assert report_jobs(config(seed="1")) == report_jobs(config())  # of two runs can be compared
    assert {job.horizon for job in report_jobs(config(outer__phases="[{horizon: [25, 90]}]"))} == {90}


def test_what_chooses_shares_no_seed_with_what_reports() -> None:
    reported = {draw for job in report_jobs(config()) for draw in job.draws}
    chosen = {draw for job in selection_jobs(config("particles: 8")) for draw in job.draws}
    assert len(chosen) == 8 * len(tasks.get("quadratic").templates("meta_valid"))
    assert not reported & chosen
    assert not chosen & {draw for job in selection_jobs(config(seed="1")) for draw in job.draws}


def test_selection_jobs_follow_the_config() -> None:
    assert selection_jobs(load_config("quickstart")) == ()
    jobs = selection_jobs(config("tasks: [quadratic, digits_mlp], max_templates: 1, objective: train"))
    assert sorted(job.family for job in jobs) == ["digits_mlp", "quadratic"]
    assert {job.horizon for job in jobs} == {30}  # of the run, for a family that it does not train on too
    assert {job.objective for job in jobs} == {"train"}
    assert {job.horizon for job in selection_jobs(config("horizon: 7"))} == {7}


def test_the_longest_job_comes_first() -> None:
    jobs = report_jobs(load_config("quickstart", ["tasks.0.horizon=[25, 40]"]))
    cost = [job.horizon * template_cost(tasks.get(job.family), job.template) for job in jobs]
    assert cost == sorted(cost, reverse=True)
    assert {job.horizon for job in jobs} == {40, 300}


def test_stratified_standard_error_by_hand() -> None:
    losses = {"a": torch.tensor([0.0, 1.0, 2.0, 3.0]).double(), "b": torch.tensor([0.0, 0.0, 0.0, 4.0]).double()}
    reference = {"a": torch.ones(4).double(), "b": torch.full((4,), 2.0).double(), "gone": torch.zeros(4).double()}
    mean, se = paired(losses, reference)
    assert mean == pytest.approx((0.5 - 1.0) / 2)
    first, second = torch.tensor([-1.0, 0.0, 1.0, 2.0]), torch.tensor([-2.0, -2.0, -2.0, 2.0])
    assert se == pytest.approx(math.sqrt(float(first.var() + second.var()) / 4) / 2)
    assert paired(losses)[0] == pytest.approx((1.5 + 1.0) / 2)
    assert all(math.isnan(value) for value in paired({}))
    change = change_between({name: Measured(torch.stack([reference[name], losses[name]]), (0, 0), 1) for name in losses})
    assert (change.low, change.high) == pytest.approx((mean - 1.96 * se, mean + 1.96 * se))
    assert (change.before, change.after) == pytest.approx((1.5, 1.25))


def test_families_without_validation_templates_give_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    none, ours = QuadraticFamily({"meta_train": {"3x1": (3, 1, "none")}}), load_config("learnable_adam")
    monkeypatch.setattr(tasks, "get", lambda name: none)
    assert report_jobs(ours) == ()
    assert all(math.isnan(value) for value in vars(change_between({})).values())


def test_a_pool_measures_what_a_call_does_and_names_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = config("particles: 2, horizon: 5")
    jobs, thetas = selection_jobs(ours), [theta(-3.0), theta(-2.0)]
    learner = learners.get(ours.learner.rule, **ours.learner.options)
    with LocalPool(ShardSetup(ours)) as pool:
        values, results = measure_all(pool, 0, jobs, thetas)
        assert all(torch.equal(values[job.name].loss, measure(learner, thetas, job).loss) for job in jobs)
        assert len(results) == len(jobs)

        from metaopt.outer import shards

        def failing(learner, thetas, job, device):
            return 1 / 0 if job == jobs[0] else measure(learner, thetas, job, device)

        monkeypatch.setattr(shards, "measure", failing)
        values, results = measure_all(pool, 0, jobs, thetas)
    assert set(values) == {job.name for job in jobs[1:]}
    (failed,) = [result for result in results if result.error is not None]
    assert "ZeroDivisionError" in failed.error
    assert isinstance(failed.item, WorkItem)
    assert failed.item.payload.job == jobs[0]
