"""Work for a pool: in order, whoever does it, and with a line when it fails."""

import dataclasses

import pytest
import torch

from metaopt.baselines.budget_runs import BudgetRuns, compute
from metaopt.cluster import WorkItem
from metaopt.errors import WorkerLostError
from metaopt.evaluation.policies.jobs import PlayJob, PolicyEvaluationSetup, own_pool, run_plays
from metaopt.evaluation.policies.loop import Rails
from metaopt.evaluation.policies.plays import play_settings, variants
from metaopt.evaluation.policies.rows import POLICY, RANDOM, UNGUARDED, UNTRAINED
from metaopt.learners.policies.network import PolicySpec
from metaopt.learners.policies.starts import inner_start
from tests.evaluation.policies.made_policies import BUCKET, constant, loud

SEEDS = (3, 4)
SETTINGS = play_settings(PolicySpec(), eval_loss=False, registers=False)


def job(who="greedy", artifact=None, bucket=BUCKET, **fields):
    return PlayJob(who, artifact or constant(lr=4), bucket, SETTINGS, SEEDS, Rails(), **fields)


def test_plays_come_back_in_the_order_asked_for():
    longer = dataclasses.replace(BUCKET, horizon=24)
    found = run_plays([job(), job(bucket=longer), job("random")], own_pool())
    assert [one.steps[-1] for one in found] == [16, 19, 16]
    assert found[0].values[-1, 0, 0] == pytest.approx(1e-3 * 1.25**4)
    assert found[2].values[:, :, 0].unique().numel() > 2


def test_a_replay_needs_values_for_one_run_or_for_all():
    values = inner_start("adamw").expand(4, 1, -1)
    one, every = run_plays([job("replay", values=values), job("replay", values=values.expand(-1, 2, -1))], own_pool())
    assert torch.equal(one.final_loss, every.final_loss)
    assert one.final_loss.shape == (2,)
    [kept] = run_plays([job(artifact=constant())], own_pool())
    assert torch.allclose(one.final_loss, kept.final_loss, rtol=1e-5)


def test_workers_run_baselines_as_well():
    runs = BudgetRuns(BUCKET.specs()[0], ("constant",), (1e-3,), (3,), (4,))
    found = PolicyEvaluationSetup().build().handle(WorkItem(0, 0, 0, runs))
    assert found.heldout.tolist() == compute(runs).heldout.tolist()


def test_a_job_that_fails_is_named():
    broken = dataclasses.replace(BUCKET, template="no such template")
    with pytest.raises(WorkerLostError, match="greedy play on quadratic no such template"):
        run_plays([job(), job(bucket=broken)], own_pool())


def test_variants_differ_in_one_thing_each():
    artifact, rails = loud(), Rails((0.5, 2.0), 0.05)
    found = variants(artifact, PolicySpec(hidden=12), rails)
    assert found[POLICY] == ("greedy", artifact, rails)
    assert found[UNGUARDED] == ("greedy", artifact, Rails(False, 0.05))
    assert found[RANDOM] == ("random", artifact, rails)
    who, fresh, same = found[UNTRAINED]
    assert (who, same) == ("greedy", rails)
    assert fresh.weights.keys() == artifact.weights.keys()
    assert not torch.equal(fresh.weights["heads.weight"], artifact.weights["heads.weight"])


def test_a_policy_is_given_all_or_nothing():
    for given in (False, True):
        settings = play_settings(PolicySpec(), eval_loss=given, registers=given)
        assert settings.eval_missing == float(not given)
        assert settings.registers == given
        assert (settings.knob_missing, settings.registers_missing, settings.perturbed) == (0.0, 0.0, 0.0)
    assert not play_settings(PolicySpec(registers=False), True, True).registers
