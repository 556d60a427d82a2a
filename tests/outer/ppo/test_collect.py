"""Playing a group: a pure function of weights, bucket and seed, whose numbers the networks confirm."""

import copy
from dataclasses import fields, replace

import pytest
import torch

from metaopt.learners.policies.network import log_prob
from metaopt.outer.ppo.collect import Played, play
from metaopt.outer.ppo.worker import fresh_networks
from tests.outer.ppo.toys import TABLE, ToyBucket, ToyWorld, toy_config

BUCKET = ToyBucket("quadratic", 40, 5)


def networks(world: ToyWorld):
    network, critic = fresh_networks(toy_config(), world)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # as after some training: heads that prefer something, a critic that expects something
        network.heads.weight.normal_(0.0, 0.5, generator=generator)
        critic.head.weight.normal_(0.0, 0.5, generator=generator)
    network.normaliser.update(torch.randn(50, 161, generator=generator) + 1)
    return network, critic


def played(world: ToyWorld = ToyWorld(runs=6), seed: int = 5, bucket: ToyBucket = BUCKET) -> Played:  # noqa: B008  (frozen)
    return play(world.make(), *networks(world), bucket, seed, 7)


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not() -> None:
    world = ToyWorld(runs=6, failing=0.3, registers=True)
    group, (network, critic) = world.make(), networks(world)
    first = play(group, network, critic, BUCKET, 5, 7)
    play(group, network, critic, ToyBucket("quadratic", 8, 2), 6, 7)  # what was played before leaves nothing behind
    torch.manual_seed(99)
    again = play(group, network, critic, BUCKET, 5, 7)
    for field in fields(first.episodes):
        one, two = getattr(first.episodes, field.name), getattr(again.episodes, field.name)
        assert one == two if field.name == "version" else torch.equal(one, two), field.name
    assert not torch.equal(play(group, network, critic, BUCKET, 6, 7).episodes.action, first.episodes.action)


def test_numbers_are_those_of_the_networks() -> None:
    world = ToyWorld(runs=6, registers=True)
    network, critic = networks(world)
    before = copy.deepcopy(network.state_dict())
    episodes = play(world.make(), network, critic, BUCKET, 5, 7).episodes
    with torch.no_grad():
        logits, _ = network(episodes.pi)
        expected = log_prob(logits, episodes.action, network.nvec, episodes.head_mask.expand(5, -1, -1))
        value = critic(episodes.pi, episodes.v)
    torch.testing.assert_close(episodes.log_prob, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(episodes.value, value, atol=1e-5, rtol=0)
    assert episodes.value.abs().max() > 0.1
    assert episodes.version == 7
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items()), "playing learns nothing"


def test_actions_follow_the_policy_and_masked_heads_leave_no_trace() -> None:
    world = ToyWorld(runs=400, registers=True)
    network, critic = networks(world)
    episodes = play(world.make(), network, critic, BUCKET, 5, 7).episodes
    assert episodes.action.shape == (5, 400, len(TABLE.nvec))
    assert (episodes.action[..., 2:] == 0).all()
    assert (episodes.action[:, 1::2, 0] == 0).all(), "no registers there"
    assert episodes.action[:, ::2, 0].unique().numel() > 5
    with torch.no_grad():
        logits, _ = network(episodes.pi)
    at = sum(TABLE.nvec[:1])
    chances = logits[..., at : at + TABLE.nvec[1]].softmax(-1).mean((0, 1))
    counts = torch.bincount(episodes.action[..., 1].flatten(), minlength=TABLE.nvec[1]) / episodes.action[..., 1].numel()
    torch.testing.assert_close(counts, chances, atol=0.04, rtol=0)


def test_a_failed_episode_ends_and_is_paid_once() -> None:
    group = played(ToyWorld(runs=50, failing=0.4))
    episodes = group.episodes
    short = ~episodes.valid[1]
    assert group.failed == int(short.sum())
    assert 8 < group.failed < 35
    assert group.decisions == int(episodes.valid.sum()) == 5 * (50 - group.failed) + group.failed
    rewards = torch.tensor(group.rewards)
    assert (rewards[short] == -3).all()
    assert set(rewards[~short].tolist()) <= {-1.0, 1.0}
    assert (episodes.reward[~episodes.valid] == 0).all()
    assert (episodes.value[~episodes.valid] == 0).all()
    assert (episodes.bootstrap == 0).all(), "the end of the budget is a real end"
    assert group.inner_steps == 40 * 50
    assert group.family == "quadratic"


def test_the_loop_ends_with_the_last_episode() -> None:
    episodes = played(ToyWorld(runs=3, failing=1.0)).episodes
    assert episodes.valid.shape == (1, 3)


def test_a_truncated_episode_is_bootstrapped_by_the_critic() -> None:
    world = ToyWorld(runs=4, cut=True)
    network, critic = networks(world)
    group = world.make()
    episodes = play(group, network, critic, BUCKET, 5, 7).episodes
    seen = group._seen()
    with torch.no_grad():
        pi, v = (torch.cat([part, torch.tensor(seen[name])[None]]) for part, name in ((episodes.pi, "pi"), (episodes.v, "v")))
        expected = critic(pi, v)[-1]
    torch.testing.assert_close(episodes.bootstrap, expected)
    assert episodes.bootstrap.abs().min() > 0


def test_numbers_that_are_not_finite_are_noticed() -> None:
    group = played()
    assert group.finite
    for name in ("pi", "reward", "log_prob", "value", "v", "bootstrap"):
        broken = getattr(group.episodes, name).clone()
        broken.view(-1)[3] = float("nan")
        assert not replace(group, episodes=replace(group.episodes, **{name: broken})).finite
    short = played(ToyWorld(runs=50, failing=0.4))
    after_its_end = torch.where(short.episodes.valid, short.episodes.value, float("nan"))
    assert replace(short, episodes=replace(short.episodes, value=after_its_end)).finite, "padding may hold anything"


@pytest.mark.parametrize("runs", [1, 2])
def test_few_runs_work(runs: int) -> None:
    assert len(played(ToyWorld(runs=runs)).rewards) == runs
