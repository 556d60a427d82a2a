"""`RayVecEnv` is what SB3's own vector environment would be with the same seeds, and a lost step costs its algorithms nothing."""

import functools

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from metaopt.cluster.ray_vec_env import RayVecEnv, episode_seed
from metaopt.errors import ConfigError, WorkerLostError
from tests.cluster.toy_envs import HostsHere, Nested, Toy, Twisted

ENVS = 4


@pytest.fixture(autouse=True)
def hosts_here(monkeypatch):
    """Hosts without Ray: what is tested here is what `RayVecEnv` makes of their answers."""
    monkeypatch.setattr("metaopt.cluster.ray_vec_env.RayHosts", HostsHere)


@pytest.fixture
def venv():
    """Four toys on two hosts, before the first reset."""
    return RayVecEnv(Toy, ENVS, workers=2, max_failures=100)


class Seeded(gymnasium.Wrapper):
    """Gives each reset the seed that `RayVecEnv` would, and keeps what does not travel."""

    def __init__(self, env, run_seed, environment):
        super().__init__(env)
        self.run_seed, self.environment, self.episode = run_seed, environment, -1

    def reset(self, *, seed=None, options=None):
        self.episode += 1
        return self.env.reset(seed=episode_seed(self.run_seed, self.environment, self.episode), options=options)

    def step(self, action):
        *found, details = self.env.step(action)
        return *found, {name: value for name, value in details.items() if name not in ("large", "lock")}


def seeded_toy(run_seed, environment):
    """Return what each of SB3's vector environments has to hold to be equal."""
    return Monitor(Seeded(Toy(), run_seed, environment))


class Watch(BaseCallback):
    """Keeps what a rollout buffer knows of the steps that failed: reward with bootstrap, value, advantage."""

    def __init__(self):
        super().__init__()
        self.rows, self.failed = [], []

    def _on_rollout_start(self):
        self.rows = []

    def _on_step(self):
        self.rows.append(["env_failure" in entry for entry in self.locals["infos"]])
        return True

    def _on_rollout_end(self):
        buffer, failed = self.model.rollout_buffer, np.array(self.rows)
        self.failed += list(zip(buffer.rewards[failed], buffer.values[failed], buffer.advantages[failed], strict=True))


def actions(steps, seed=0):
    return np.random.default_rng(seed).integers(0, [3, 2], size=(steps, ENVS, 2))


def record(venv, sequence, faults=None):
    """Return all that is observed over a reset and a step for each of the actions, without what the clock says."""
    if faults is not None:
        venv.set_attr("faults", faults)
    rows = [(venv.reset(), [dict(entry) for entry in venv.reset_infos])]
    for action in sequence:
        observation, reward, done, infos = venv.step(action)
        for entry in infos:
            entry.get("episode", {}).pop("t", None)
        rows.append((observation, reward, done, infos, [dict(entry) for entry in venv.reset_infos]))
    return rows


def assert_same(left, right):
    """Compare nested tuples, lists, dicts and arrays, with their types and to the bit."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, tuple | list):
        assert len(left) == len(right)
        for pair in zip(left, right, strict=True):
            assert_same(*pair)
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        assert np.array_equal(left, right)
    else:
        assert left == right


def test_same_bytes_as_dummy_vec_env(venv):
    sequence = actions(20)
    expected = record(DummyVecEnv([functools.partial(seeded_toy, 7, env) for env in range(ENVS)]), sequence)
    assert sum(row[2].sum() for row in expected[1:]) > 10
    venv.seed(7)
    assert_same(record(venv, sequence), expected)
    assert venv.stats.steps == 20 * ENVS
    assert venv.stats.episodes == sum(row[2].sum() for row in expected[1:])


def test_ppo_learns_from_it_by_id_and_knows_its_episodes():
    venv = RayVecEnv("CartPole-v1", 2, workers=1)
    model = PPO("MlpPolicy", VecNormalize(venv), n_steps=64, batch_size=64, n_epochs=1, device="cpu", seed=3)
    model.learn(256)
    assert venv.seed() == [episode_seed(3, env, venv._episodes[env] + 1) for env in range(2)], "the algorithm's seed is the run seed"
    assert venv.stats.steps == 256
    lengths = [entry["l"] for entry in model.ep_info_buffer]
    assert lengths
    assert [entry["r"] for entry in model.ep_info_buffer] == lengths
    assert len(lengths) == venv.stats.episodes
    venv.close()
    venv.close()
    with pytest.raises(RuntimeError, match="closed"):
        venv.step(np.zeros(2, dtype=np.int64))


def test_a_replay_buffer_keeps_where_a_failed_step_was_taken():
    """Off-policy algorithms bootstrap too: next observation = observation, and the end does not count as one."""
    venv = RayVecEnv(functools.partial(Toy, spaces.Discrete(3)), 1, workers=1)
    venv.set_attr("faults", {episode_seed(5, 0, 0): (2, "raise")})
    model = DQN("MultiInputPolicy", venv, learning_starts=4, buffer_size=16, batch_size=4, train_freq=1, device="cpu", seed=5)
    model.learn(6)
    buffer = model.replay_buffer
    assert_same(buffer.next_observations["pi"][1], buffer.observations["pi"][1])
    assert (buffer.rewards[1, 0], buffer.dones[1, 0], buffer.timeouts[1, 0]) == (0, 1, 1)
    assert not np.array_equal(buffer.next_observations["pi"][0], buffer.observations["pi"][0])


def test_sb3_evaluates_policies_on_it(venv):
    model = PPO("MultiInputPolicy", venv, n_steps=8, batch_size=32, device="cpu", seed=5)
    rewards, lengths = evaluate_policy(model, venv, n_eval_episodes=8, return_episode_rewards=True)
    assert len(rewards) == 8
    assert all(3 <= length <= 7 for length in lengths)


def test_a_failed_step_is_done_truncated_and_leads_back_to_where_it_was_taken(venv):
    before = (venv.stats.failures, venv.stats.rebuilds)
    venv.set_attr("faults", {episode_seed(0, 1, 0): (2, "raise")})
    sequence = actions(2)
    venv.reset()
    returned = venv.step(sequence[0])[0]
    earlier = {name: rows.copy() for name, rows in returned.items()}
    returned["pi"][:] = 0  # what was returned is the caller's
    observation, reward, done, infos = venv.step(sequence[1])
    assert done.tolist() == [False, True, False, False]
    assert reward[1] == 0
    assert infos[1]["TimeLimit.truncated"] is True
    assert infos[1]["env_failure"] == "ArithmeticError: planted"
    assert "episode" not in infos[1]
    assert_same(infos[1]["terminal_observation"], {name: rows[1] for name, rows in earlier.items()})
    first = Toy().reset(seed=episode_seed(0, 1, 1))[0]
    assert_same({name: rows[1] for name, rows in observation.items()}, first)
    assert (venv.stats.failures, venv.stats.rebuilds) == (before[0] + 1, before[1] + 1)


def test_a_failed_step_has_no_advantage(venv):
    """SB3's own numbers: reward with its bootstrap equals the value, so the TD error, with which an advantage starts anew, is 0."""
    venv.set_attr("faults", {episode_seed(5, env, env): (2, ("raise", "nan")[env % 2]) for env in range(ENVS)})
    model = PPO("MultiInputPolicy", venv, n_steps=32, batch_size=32, n_epochs=1, gamma=1.0, device="cpu", seed=5)
    watch = Watch()
    model.learn(3 * 32 * ENVS, callback=watch)
    assert len(watch.failed) == ENVS
    for reward, value, advantage in watch.failed:
        assert value != 0
        assert reward == pytest.approx(value, abs=1e-6)
        assert advantage == pytest.approx(0, abs=1e-6)


def test_a_failed_reset_is_counted_and_does_not_touch_the_step_before(venv):
    seeds = {env: [episode_seed(0, env, episode) for episode in range(4)] for env in range(ENVS)}
    venv.set_attr("faults", {seeds[0][0]: (0, "raise"), seeds[0][1]: (0, "nan"), seeds[2][1]: (0, "raise")})
    before = venv.stats.failures
    venv.reset()
    assert [entry["seed"] for entry in venv.reset_infos] == [seeds[0][2], seeds[1][0], seeds[2][0], seeds[3][0]]
    for action in actions(7):
        _, reward, _, infos = venv.step(action)
        if "episode" in infos[2]:
            break
    assert reward[2] != 0
    assert "env_failure" not in infos[2]
    assert venv.reset_infos[2]["seed"] == seeds[2][2]
    assert venv.stats.failures == before + 3


def test_poison_ends_the_run_with_its_seeds(venv):
    seeds = [episode_seed(0, 3, episode) for episode in range(3)]
    venv.set_attr("faults", dict.fromkeys(seeds, (1, "nan")))
    venv.reset()
    venv.step(actions(1)[0])
    venv.step(actions(1)[0])
    text = f"environment 3 failed 3 times in a row, last: ValueError: observation 'pi' is not finite; .* seeds {', '.join(map(str, seeds))}"
    with pytest.raises(WorkerLostError, match=text):
        venv.step(actions(1)[0])


def test_an_episode_that_ends_by_itself_forgives(venv):
    venv.set_attr("faults", {episode_seed(0, 3, episode): (1, "nan") for episode in range(0, 40, 2)})
    before = venv.stats.failures
    venv.reset()
    for action in actions(40):
        venv.step(action)
    assert venv.stats.failures > before + 4


def test_a_reset_that_always_fails_ends_too(venv):
    venv.set_attr("faults", {episode_seed(0, 1, episode): (0, "raise") for episode in range(9)})
    with pytest.raises(WorkerLostError, match="environment 1 failed 3 times in a row"):
        venv.reset()


def test_the_rest_of_the_interface(venv):
    assert venv.render_mode is None
    assert venv.get_images() == [None] * ENVS
    assert venv.env_is_wrapped(Monitor) == [True] * ENVS
    assert venv.env_is_wrapped(VecNormalize, [2]) == [False]
    venv.reset()
    lengths = venv.get_attr("length")
    assert venv.get_attr("length", indices=[3, 0]) == [lengths[3], lengths[0]]
    assert venv.env_method("threads", indices=2) == [1]
    venv.set_attr("mark", "odd", indices=[1, 3])
    assert venv.get_attr("mark", 1) == ["odd"]
    assert venv.get_attr("mark") == [False, "odd", False, "odd"]
    venv.set_attr("mark", False)
    assert venv.has_attr("faults")
    assert not venv.has_attr("absent")
    with pytest.raises(KeyError, match="planted"):
        venv.env_method("raising")
    venv.set_options([{"a": env} for env in range(ENVS)])
    venv.reset()
    assert [entry["options"] for entry in venv.reset_infos] == [{"a": env} for env in range(ENVS)]
    venv.reset()
    assert [entry["options"] for entry in venv.reset_infos] == [None] * ENVS
    assert venv.seed(None) == [episode_seed(0, env, 3) for env in range(ENVS)]
    with pytest.raises(RuntimeError, match="step_async"):
        venv.step_wait()
    first = venv.reset()
    venv.step_async(actions(1)[0])
    assert not np.array_equal(venv.reset()["pi"], first["pi"]), "the step is dropped"


def test_a_dead_host_costs_each_of_its_environments_one_step(venv):
    """Whoever was in the dead one goes on with a new seed; the others do not notice."""
    venv.set_attr("faults", {episode_seed(0, 1, 0): (2, "die")})
    sequence = actions(3)
    expected = record(DummyVecEnv([functools.partial(seeded_toy, 0, env) for env in range(ENVS)]), sequence)
    venv.reset()
    earlier = venv.step(sequence[0])[0]
    observation, reward, done, infos = venv.step(sequence[1])
    assert done.tolist() == [True, True, False, False]
    assert [entry.get("env_failure") for entry in infos] == ["died", "died", None, None]
    assert reward[:2].tolist() == [0, 0]
    for env in (0, 1):
        assert_same(infos[env]["terminal_observation"], {name: rows[env] for name, rows in earlier.items()})
        assert venv.reset_infos[env]["seed"] == episode_seed(0, env, 2), "1 may have begun in the dead host"
    assert np.array_equal(observation["pi"][2:], expected[2][0]["pi"][2:])
    assert np.array_equal(venv.step(sequence[2])[1][2:], expected[3][1][2:])
    assert (venv.stats.failures, venv.stats.restarts, venv.stats.rebuilds) == (1, 1, 0)
    assert all(len(faults) == 1 for faults in venv.get_attr("faults")), "what was set is set again"


def test_a_sound_step_is_kept_when_its_host_dies_over_a_neighbour(venv):
    """Environment 0 fails, and its next episode kills the host: environment 1 has a true last observation to bootstrap from."""
    venv.set_attr("faults", {episode_seed(0, 0, 0): (1, "raise"), episode_seed(0, 0, 1): (0, "die")})
    action = actions(1)[0]
    lone = Toy()
    lone.reset(seed=episode_seed(0, 1, 0))
    last, expected_reward, *_ = lone.step(action[1])
    venv.reset()
    _, reward, done, infos = venv.step(action)
    assert done.tolist() == [True, True, False, False]
    assert [entry.get("env_failure") for entry in infos] == ["ArithmeticError: planted", "died", None, None]
    assert reward[:2].tolist() == [0, np.float32(expected_reward)]
    assert infos[1]["TimeLimit.truncated"] is True
    assert_same(infos[1]["terminal_observation"], last)
    assert (venv.stats.failures, venv.stats.restarts, venv.stats.rebuilds) == (2, 1, 1)


def test_a_host_that_does_not_come_back_ends_the_run(venv):
    venv.reset()
    venv.set_attr("faults", {episode_seed(0, 3, 0): (1, "die")})
    venv._hosts.fail_to_open = 1
    *_, infos = venv.step(actions(1)[0])
    assert infos[3]["env_failure"] == "died"
    assert (venv.stats.failures, venv.stats.restarts) == (2, 2)
    venv.set_attr("faults", dict.fromkeys((entry["seed"] for entry in venv.reset_infos), (1, "die")))
    venv._hosts.fail_to_open = 9
    with pytest.raises(WorkerLostError, match=r"environment 2 \(in one process with environments 3\) failed 3 times in a row"):
        venv.step(actions(1)[0])
    venv.close()


def test_too_many_failures_end_the_run():
    venv = RayVecEnv(Toy, ENVS, workers=1, max_failures=2)
    venv.set_attr("faults", {episode_seed(0, env, 0): (1 + (env == 3), "nan") for env in (0, 1, 3)})
    venv.reset()
    venv.step(actions(1)[0])
    with pytest.raises(WorkerLostError, match="environments failed 3 times in 8 steps, last: ValueError: observation 'pi' is not finite"):
        venv.step(actions(1)[0])


def test_refusals():
    with pytest.raises(ConfigError, match=r"workers must be in \[1, num_envs=2\], got 3"):
        RayVecEnv(Toy, 2, workers=3)
    with pytest.raises(ConfigError, match="threads must be >= 1, got 0"):
        RayVecEnv(Toy, 2, threads=0)
    with pytest.raises(ConfigError, match="must have the same spaces each time"):
        RayVecEnv(Twisted, 2, workers=2)
    with pytest.raises(ConfigError, match="must be Box"):
        RayVecEnv(Nested, 1, workers=1)
