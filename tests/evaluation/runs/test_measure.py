"""What an evaluation needs, from runner to curves: which pairs, which seeds, which envelopes."""

from dataclasses import replace

import numpy as np
import pytest

from metaopt import baselines
from metaopt.baselines import TRIALS, Store, envelope_key, run_job
from metaopt.cluster import LocalPool
from metaopt.evaluation.candidates import resolve
from metaopt.evaluation.runs.jobs import EvaluationSetup, JobRunner
from metaopt.evaluation.runs.measure import measure
from metaopt.evaluation.scores.speedup import constant_rate_envelope
from tests.evaluation.own_learners import RULE, Broken, scored

CHOSEN = [baselines.get("sgd"), baselines.get("adamw")]
[SGD, ADAM] = resolve(["sgd@0.05", "adam@0.05"])
TASKS = [*scored(2), replace(scored(1, horizon=15)[0], name="stream", kinds=("in_context",))]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store((tmp_path_factory.mktemp("baselines"),))


def runner(store, runs=None, said=None):
    progress = None if said is None else lambda *call: said.append(call[:3])
    return JobRunner(LocalPool(EvaluationSetup()), store, "cpu", progress, runs)


@pytest.fixture(scope="module")
def measured(store):
    meta_seeds = [replace(ADAM, name="method", meta_seed=seed) for seed in (0, 1)]
    candidates = [SGD, *meta_seeds, replace(ADAM, name="broken", learner=Broken(RULE)), replace(ADAM, name="reader", kind="in_context")]
    return measure(runner(store), candidates, CHOSEN, TASKS, 3, envelope=True)


def test_pairs_are_those_that_can_run(measured):
    usual, streams = ["6x6-minimum-0", "6x6-minimum-1"], ["stream"]
    pairs = {("sgd@0.05", 0), ("method", 0), ("method", 1), ("broken", 0)}
    assert set(measured.learners) == {(*pair, name) for pair in pairs for name in usual} | {("reader", 0, name) for name in streams}


def test_a_learner_that_breaks_has_a_reason_and_the_others_curves(measured):
    for (name, _, _), curves in measured.learners.items():
        assert (curves == "RuntimeError: out of order") == (name == "broken")
        assert name == "broken" or curves.heldout.shape[1] == 3


def test_learners_and_baselines_start_alike_on_every_seed(measured):
    for task in TASKS[:2]:
        first = measured.learners["sgd@0.05", 0, task.name].heldout[0]
        for (name, _, _), curves in measured.baselines.items():
            if name == task.name:
                np.testing.assert_allclose(curves.heldout[0], first, rtol=1e-5)
        assert len(set(first)) == 3


def test_every_task_has_baselines_and_a_reference_on_longer_horizons(measured):
    for task in TASKS:
        tuned = measured.tuned[task.name]
        assert [one.baseline.name for one in tuned] == ["sgd", "adamw"]
        for one in tuned:
            assert {(task.name, one.baseline.name, one.trials[count]) for count in TRIALS} <= set(measured.baselines)
        reference = measured.references[task.name]
        assert list(reference.runs) == [factor * task.spec.horizon for factor in (1, 2, 4)]
        assert reference.name == min(tuned, key=lambda one: one.loss).baseline.name


def test_envelopes_are_those_of_constant_rates_and_only_where_asked_for(measured, store):
    assert set(measured.envelopes) == {task.name for task in TASKS}
    key = envelope_key(TASKS[0].spec)
    curves = key.kept(run_job(key.job()))
    steps, losses = constant_rate_envelope(curves.steps, key.by_trial(curves))
    np.testing.assert_array_equal(measured.envelopes[TASKS[0].name][0], steps)
    np.testing.assert_array_equal(measured.envelopes[TASKS[0].name][1], losses)
    assert steps[-1] == 4 * TASKS[0].spec.horizon
    assert measure(runner(store), [SGD], CHOSEN, TASKS[:1], 1, envelope=False).envelopes == {}


def test_a_second_evaluation_runs_only_what_is_new(measured, store, tmp_path):
    runs, said = Store((tmp_path,)), []
    first = measure(runner(store, runs, said), [SGD], CHOSEN, TASKS, 3, envelope=True)
    assert {what for what, _, _ in said} == {"learners"}
    said.clear()
    both = measure(runner(store, runs, said), [SGD, ADAM], CHOSEN, TASKS[::-1], 3, envelope=True)
    assert said == [("learners", 0, 120), ("learners", 120, 120)]
    for name in ("6x6-minimum-0", "6x6-minimum-1"):
        pair = "sgd@0.05", 0, name
        assert first.learners[pair].heldout.tobytes() == both.learners[pair].heldout.tobytes()
        assert first.learners[pair].train.tobytes() == measured.learners[pair].train.tobytes()
