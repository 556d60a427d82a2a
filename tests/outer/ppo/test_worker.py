"""Workers: buckets that cannot be scored are drawn again, and nothing of a piece of work is left for the next."""

import pickle

import torch

from metaopt.cluster import LocalPool, WorkItem
from metaopt.config.policy import PolicyStageConfig
from metaopt.outer.ppo.collect import Played
from metaopt.outer.ppo.worker import CollectSetup, GroupWork, Rejected, fresh_networks, policy_spec
from tests.outer.ppo.toys import ToyWorld, toy_config

CONFIG = toy_config()


def weights(world: ToyWorld, shift: float = 0.0):
    network, critic = fresh_networks(CONFIG, world)
    state = {name: value + shift if value.is_floating_point() else value for name, value in network.state_dict().items()}
    return {"network": state, "critic": dict(critic.state_dict())}


def results(world: ToyWorld, seeds: range, shifts: tuple[float, ...] = (0.0,)):
    pool = LocalPool(CollectSetup(CONFIG, world))
    found = []
    for shift in shifts:
        policy = pool.share(weights(world, shift))
        items = [WorkItem(4, seed, 0, GroupWork(policy, 4, seed, PolicyStageConfig())) for seed in seeds]
        found.append([result.value for result in pool.run(items, lambda item, reason: None)])
    return found


def test_it_is_plain_data_all_the_way() -> None:
    setup = pickle.loads(pickle.dumps(CollectSetup(CONFIG, ToyWorld())))  # noqa: S301  (as Ray does)
    assert setup.config.hash == CONFIG.hash
    assert policy_spec(CONFIG).knobs == ("lr",)
    assert policy_spec(CONFIG).hidden == 8
    again = fresh_networks(CONFIG, ToyWorld())[0].state_dict()
    assert all(torch.equal(value, again[name]) for name, value in fresh_networks(CONFIG, ToyWorld())[0].state_dict().items())
    other = fresh_networks(toy_config("seed=1"), ToyWorld())[0].state_dict()
    assert not torch.equal(other["heads.weight"], again["heads.weight"])


def test_weights_come_with_the_work_and_do_not_stay() -> None:
    world = ToyWorld()
    first, _, again = results(world, range(2), (0.0, 0.3, 0.0))
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.episodes.log_prob, two.episodes.log_prob)
        assert one.episodes.version == 4


def test_values_are_those_of_the_critic_that_came() -> None:
    world = ToyWorld()
    policy = weights(world)
    policy["critic"]["head.bias"] = policy["critic"]["head.bias"] + 2.5
    pool = LocalPool(CollectSetup(CONFIG, world))
    work = GroupWork(pool.share(policy), 0, 3, PolicyStageConfig())
    (result,) = pool.run([WorkItem(0, 0, 0, work)], lambda item, reason: None)
    episodes = result.value.episodes
    torch.testing.assert_close(episodes.value, torch.full_like(episodes.value, 2.5), atol=1e-4, rtol=0)


def test_rejected_buckets_are_drawn_again_and_counted() -> None:
    (found,) = results(ToyWorld(rejecting=0.5), range(30))
    assert all(isinstance(value, Played) for value in found)
    counts = [value.rejected for value in found]
    assert 10 < sum(counts) < 60
    assert max(counts) > 1


def test_a_group_that_nothing_can_score_is_an_answer_and_no_failure() -> None:
    (found,) = results(ToyWorld(rejecting=1.0), range(2))
    assert found == [Rejected(8, "the toy's baseline is flat")] * 2
