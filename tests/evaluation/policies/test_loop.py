"""Closed loops on a group: guard rails, what a policy is given, and replays."""

import pytest
import torch

from metaopt.artifacts.policy import load_policy
from metaopt.evaluation.policies.loop import GuardedGroup, Rails, greedy_actor, play, random_actor, replay
from metaopt.evaluation.policies.plays import play_settings
from metaopt.learners.policies.knobs import HEADS, KNOBS
from metaopt.learners.policies.network import PolicySpec
from metaopt.learners.policies.observation import LAYOUT, NAMES
from metaopt.learners.policies.starts import inner_start
from metaopt_envs.group import Group
from tests.evaluation.policies.made_policies import BUCKET, constant, loud

SEEDS = (5, 6, 7, 8)
SPEC = PolicySpec()


def settings(eval_loss=False, registers=False):
    return play_settings(SPEC, eval_loss, registers)


def played(artifact, rails=Rails(), bucket=BUCKET, **given):  # noqa: B008
    return play(greedy_actor(load_policy(artifact), len(SEEDS)), bucket, settings(**given), SEEDS, rails)


def test_it_is_the_groups_own_closed_loop():
    found = played(loud())
    group = Group(BUCKET, settings(), 0, len(SEEDS), inner_start("adamw"), True, SEEDS)
    seen, actor = group.begin(), greedy_actor(load_policy(loud()), len(SEEDS))
    for t in range(len(group.decisions)):
        assert torch.equal(found.pi[t], seen.pi)
        seen = group.act(torch.where(group.head_mask, actor(t, seen.pi), -1))
    assert torch.equal(found.final_loss, seen.final_loss.double())
    assert found.values[:, :, 0].unique().numel() > 1


@pytest.mark.parametrize("eval_loss", [False, True])
def test_a_policy_sees_an_evaluation_loss_if_it_is_given_one(eval_loss):
    found = played(loud(), eval_loss=eval_loss).pi
    ratio = found[1:, :, NAMES.index("loss_ratio_tanh")]
    assert bool((ratio != 0).all()) == eval_loss
    assert (found[..., LAYOUT["restart_progress"]] == 1).all()


@pytest.mark.parametrize(("guard", "lowest", "highest"), [(True, 1e-6, 0.1), ((0.1, 10.0), 1e-4, 1e-2), (False, 1e-8, 1.0)])
def test_rates_stay_within_the_rails(guard, lowest, highest):
    up, down = (played(constant(lr=choice), Rails(guard)).values[:, :, 0] for choice in (6, 0))
    assert up.max() == pytest.approx(min(highest, 10.0))
    assert down.min() == pytest.approx(max(lowest, 1e-7))


def test_a_card_may_cap_the_rate():
    assert played(constant(lr=6), Rails(True, 0.03)).values[:, :, 0].max() == pytest.approx(0.03)


def lost_at(group, run):
    """Play until the first decision and pretend that a run's loss was not finite."""
    group.begin()
    group._lost[run] = True
    return torch.tensor([0, 3, 1, 1, 1, 1, 2, 1, 1]).expand(group.runs, -1).clone()


def test_a_run_that_is_lost_is_halved_and_falls_along_a_cosine():
    group = GuardedGroup(BUCKET, settings(), SEEDS, Rails())
    keep = lost_at(group, 1)
    rates = []
    advance = group.inner.advance
    group.inner.advance = lambda values, until, measured: (rates.append(values[:, 0].clone()), advance(values, until, measured))
    for _ in range(len(group.decisions)):
        up = keep.clone()
        up[:, HEADS.index("lr")] = 4  # which the lost run must not follow
        seen = group.act(up)
    assert group.handed_over.tolist() == [False, True, False, False]
    lost = torch.stack(rates)[:, 1]
    assert lost[0] == pytest.approx(0.5e-3)
    assert (lost.diff() < 0).all()
    assert lost[-1] < 0.02 * lost[0]
    assert torch.stack(rates)[:, 0].max() > 1e-3
    assert group.start[1, 0] == 1e-3
    assert seen.final_loss.isfinite().all()


def test_a_lost_run_with_a_register_loads_the_best_one():
    group = GuardedGroup(BUCKET, settings(registers=True), SEEDS, Rails())
    keep = lost_at(group, 1)
    group._lost[1] = False
    save = keep.clone()
    save[:, 0] = 4
    group.act(save)
    before = {name: value.clone() for name, value in group.saved[0]["params"].items()}
    group._lost[1] = True
    loaded = []
    registers = group._registers
    group._registers = lambda action: (loaded.append(action.clone()), registers(action))
    group.act(keep)
    assert loaded[0].tolist() == [0, 1, 0, 0]
    assert not group.handed_over.any()
    assert before.keys() == group.saved[0]["params"].keys()


def test_without_guard_rails_nothing_is_taken_from_the_policy():
    group = GuardedGroup(BUCKET, settings(), SEEDS, Rails(False))
    group.act(lost_at(group, 1))
    assert not group.handed_over.any()
    assert (group.values[:, 0] == 1e-3).all()


def test_a_replay_of_what_was_done_ends_where_it_ended():
    found = played(loud())
    again = replay(found.values, BUCKET, SEEDS)
    assert torch.allclose(again.final_loss, found.final_loss, rtol=1e-5)


def test_random_choices_are_uniform_and_repeat():
    actor = random_actor(SPEC, 4000, seed=3)
    chosen = actor(0, torch.empty(0))
    assert torch.equal(chosen, random_actor(SPEC, 4000, seed=3)(0, torch.empty(0)))
    assert not torch.equal(chosen, actor(1, torch.empty(0)))
    for head, count in enumerate(SPEC.nvec):
        shares = torch.bincount(chosen[:, head], minlength=count) / 4000
        assert len(shares) == count
        assert (shares - 1 / count).abs().max() < 0.03
    assert len(KNOBS) + 1 == len(SPEC.nvec)
