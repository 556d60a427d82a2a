"""A host answers whatever its environments do, without Ray."""

import functools
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metaopt.cluster.env_host import EnvHost, layout
from metaopt.errors import ConfigError
from tests.cluster.toy_envs import Nested, Toy

ACTIONS = np.array([[0, 1], [2, 0], [1, 1]])


@pytest.fixture
def host():
    """Three environments at the first observation of seeds 10, 11 and 12."""
    found = EnvHost()
    found.open(Toy, 3, threads=1)
    begin(found, [10, 11, 12])
    return found


def begin(host, seeds, faults=None, rebuild=False):
    return host.begin([0, 1, 2], seeds, [{}] * 3, [{"faults": faults or {}}] * 3, rebuild)


def play(seed, actions):
    """Return what a lone environment answers: the observation of the reset, then the steps."""
    env = Toy()
    return [env.reset(seed=seed)[0], *(env.step(action) for action in actions)]


def test_steps_are_those_of_lone_environments(host):
    first = begin(host, [10, 11, 12])
    assert [entry["seed"] for entry in first.infos] == [10, 11, 12]
    found = host.step(ACTIONS, [20, 21, 22])
    assert found.observations["pi"].dtype == np.float32
    assert found.observations["v"].shape == (3, 2, 2)
    for place, seed in enumerate((10, 11, 12)):
        start, (observation, reward, *_) = play(seed, ACTIONS[place : place + 1])
        for name in ("pi", "v"):
            assert np.array_equal(first.observations[name][place], start[name])
            assert np.array_equal(found.observations[name][place], observation[name])
        assert found.rewards[place] == reward
    assert not found.failures
    assert not found.unbegun
    assert not found.dones.any()


def test_an_episode_that_ends_is_followed_by_the_next_seed(host):
    seeds = [10, 11, 12]
    ended = {}
    for step in range(7):
        found = host.step(ACTIONS, [seed + 100 for seed in seeds])
        for place in np.flatnonzero(found.dones):
            assert np.array_equal(found.observations["pi"][place], play(seeds[place] + 100, [])[0]["pi"])
            last, _, terminated, truncated, _ = play(seeds[place], [ACTIONS[place]] * (found.infos[place]["step"]))[-1]
            assert np.array_equal(found.last[place]["pi"], last["pi"])
            assert (terminated or truncated, truncated) == (True, found.truncated[place])
            assert found.begun[place]["seed"] == seeds[place] + 100
            ended[place] = step
            seeds[place] += 100
    assert set(ended) == {0, 1, 2}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raise", "ArithmeticError: planted"),
        ("nan", "ValueError: observation 'pi' is not finite"),
        ("shape", r"ValueError: observation 'pi' has shape (2,), its space (3,)"),
        ("reward", "ValueError: reward is nan"),
    ],
)
def test_a_failed_step_is_an_answer_and_the_others_go_on(host, kind, reason):
    begin(host, [10, 11, 12], {11: (1, kind)})
    found = host.step(ACTIONS, [20, 21, 22])
    assert found.failures == {1: reason}
    assert not found.dones.any()
    assert np.array_equal(found.observations["pi"][2], play(12, ACTIONS[2:])[1][0]["pi"])
    again = host.begin([1], [31], [{}], [{}], True)
    assert np.array_equal(again.observations["pi"][0], play(31, [])[0]["pi"])
    assert host.get_attr([1], "faults") == [{}], "made anew"


def test_a_failed_reset_does_not_touch_the_step_before(host):
    begin(host, [10, 11, 12], dict.fromkeys((20, 21, 22), (0, "raise")))
    for _ in range(7):
        found = host.step(ACTIONS, [20, 21, 22])
        if found.dones.any():
            break
    places = set(np.flatnonzero(found.dones))
    assert set(found.unbegun) == set(found.last) == places
    assert not found.begun
    assert not found.failures
    first = begin(host, [20, 11, 12], {20: (0, "nan")})
    assert first.failures == {0: "ValueError: observation 'pi' is not finite"}


def test_infos_travel_light(host):
    found = host.step(ACTIONS, [20, 21, 22])
    assert set(found.infos[0]) == {"step", "state", "task"}
    assert len(pickle.dumps(found)) < 4000


def test_options_attributes_methods(host):
    first = host.begin([2, 0], [1, 2], [{"a": 1}, {}], [{}, {"faults": {7: (1, "nan")}}], True)
    assert [entry["options"] for entry in first.infos] == [{"a": 1}, None]
    assert host.get_attr([0, 2], "faults") == [{7: (1, "nan")}, {}]
    host.set_attr([1], "mark", "set")
    assert host.get_attr([0, 1], "mark") == [False, "set"]
    with pytest.raises(KeyError, match="planted"):
        host.env_method([0], "raising", (), {})
    with pytest.raises(AttributeError):
        host.get_attr([0], "absent")


def test_threads_are_fixed_inside_and_left_alone_outside():
    host, before = EnvHost(), torch.get_num_threads()
    host.open(Toy, 1, threads=2)
    assert host.env_method([0], "threads", (), {}) == [2]
    assert torch.get_num_threads() == before


def test_ids_are_made_by_gymnasium_and_attributes_found_below_wrappers(tmp_path):
    host = EnvHost()
    opened = host.open("CartPole-v1", 2, threads=1)
    assert opened.action_space == spaces.Discrete(2)
    host.set_attr([0, 1], "gravity", 3.5)
    assert host.get_attr([0, 1], "unwrapped")[0].gravity == 3.5
    from gymnasium.wrappers import NormalizeReward, TimeLimit

    assert host.env_is_wrapped([0, 1], TimeLimit) == [True, True]
    assert host.env_is_wrapped([0], NormalizeReward) == [False]


def test_close_reaches_every_environment(host, tmp_path):
    host.set_attr([0, 1, 2], "closed_file", str(tmp_path / "closed"))
    host.begin([1], [1], [{}], [{}], True)
    host.close()
    assert (tmp_path / "closed").read_text() == "...", "one when made anew, two of the first ones at the end"


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ConfigError, match=r"environment 'CartPole-v99' cannot be made: .*CartPole"):
        EnvHost().open("CartPole-v99", 1, 1)
    with pytest.raises(ConfigError, match="must be Box, Discrete, MultiDiscrete, MultiBinary or a Dict of these, got Tuple"):
        EnvHost().open(Nested, 1, 1)
    with pytest.raises(ConfigError, match="TypeError"):
        EnvHost().open(functools.partial(Toy, absent=1), 1, 1)


def test_layouts():
    assert layout(spaces.Discrete(3)) == {"": ((), np.dtype(np.int64))}
    assert layout(spaces.MultiBinary(4)) == {"": ((4,), np.dtype(np.int8))}
    assert layout(spaces.Dict(a=spaces.MultiDiscrete([2, 3]))) == {"a": ((2,), np.dtype(np.int64))}
    with pytest.raises(ConfigError, match="got Dict"):
        layout(spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2))))
