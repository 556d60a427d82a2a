"""On Ray: the same bytes for any number of actors, and actors that die or stall cost a step each."""

import functools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from metaopt.cluster.ray_vec_env import RayVecEnv, episode_seed
from metaopt.errors import ConfigError, WorkerLostError
from tests.cluster.test_ray_vec_env import ENVS, Watch, actions, assert_same, record, seeded_toy
from tests.cluster.toy_envs import Toy

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("workers", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_same_bytes_for_one_actor_and_four(ray_session, workers):
    """Before the tests that use `venv`: four actors need all of the session's CPUs."""
    sequence = actions(20)
    expected = record(DummyVecEnv([functools.partial(seeded_toy, 7, env) for env in range(ENVS)]), sequence)
    venv = RayVecEnv(Toy, ENVS, workers=workers, seed=7)
    try:
        assert_same(record(venv, sequence), expected)
        pids = venv.env_method("pid")
        assert len(set(pids)) == workers
        assert os.getpid() not in pids
        assert venv.env_method("threads", indices=[3]) == [1]
        assert not venv.has_attr("absent")
        with pytest.raises(KeyError, match="planted"):
            venv.env_method("raising", indices=[0])
    finally:
        venv.close()
    gone(pids)


def test_an_environment_that_cannot_be_made_is_bad_input(ray_session):
    with pytest.raises(ConfigError, match="environment 'CartPole-v99' cannot be made: VersionNotFound"):
        RayVecEnv("CartPole-v99", 1, workers=1)
    with pytest.raises(ConfigError, match="9 workers of 1 CPUs do not fit"):
        RayVecEnv(Toy, 9, workers=9)


@pytest.fixture(scope="module")
def shared(ray_session):
    """Four toys on two actors."""
    venv = RayVecEnv(Toy, ENVS, workers=2, max_failures=1000)
    yield venv
    venv.close()


@pytest.fixture
def venv(shared):
    """The shared one with run seed 0 before its first reset, no faults, no failures in a row."""
    shared.set_attr("faults", {})
    shared.seed(0)
    for env in range(ENVS):
        shared._budget.complete(env)
    return shared


def gone(pids):
    """Wait until no such process is left."""
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Killer(Watch):
    """Kills the actor of environment 0 from outside after some steps."""

    def _on_step(self):
        super()._on_step()
        if self.n_calls == 5:
            os.kill(self.training_env.env_method("pid", indices=[0])[0], signal.SIGKILL)
        return True


@pytest.mark.chaos
def test_learning_goes_on_when_an_actor_is_killed(venv):
    model = PPO("MultiInputPolicy", venv, n_steps=16, batch_size=32, n_epochs=1, gamma=1.0, device="cpu", seed=5)
    restarts, watch = venv.stats.restarts, Killer()
    pids = venv.env_method("pid")
    model.learn(3 * 16 * ENVS, callback=watch)
    assert model.num_timesteps == 3 * 16 * ENVS
    assert venv.stats.restarts == restarts + 1
    assert len(watch.failed) == 2, "one step of each of the actor's environments"
    for reward, value, advantage in watch.failed:
        assert value != 0
        assert reward == pytest.approx(value, abs=1e-6)
        assert advantage == pytest.approx(0, abs=1e-6)
    assert [new != old for new, old in zip(venv.env_method("pid"), pids, strict=True)] == [True, True, False, False]
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    gone([pids[0]])


@pytest.mark.chaos
def test_an_actor_that_stalls_is_replaced(venv, monkeypatch):
    monkeypatch.setattr(venv._hosts, "_deadline_s", 5.0)
    venv.set_attr("faults", {episode_seed(0, 2, 0): (1, "stall"), episode_seed(0, 0, 0): (2, "kill")})
    pids = venv.env_method("pid")
    sequence = actions(3)
    venv.reset()
    *_, done, infos = venv.step(sequence[0])
    assert done.tolist() == [False, False, True, True]
    assert [entry.get("env_failure") for entry in infos] == [None, None, "no answer in 5 s", "no answer in 5 s"]
    gone([pids[2]])
    *_, done, infos = venv.step(sequence[1])
    assert done[:2].tolist() == [True, True]
    assert [entry.get("env_failure") for entry in infos[:2]] == ["ActorDiedError"] * 2
    assert np.isfinite(venv.step(sequence[2])[1]).all()


@pytest.mark.chaos
def test_a_dead_actor_is_named_when_it_is_asked_and_replaced_at_the_next_step(venv):
    venv.reset()
    pid = venv.env_method("pid", indices=[3])[0]
    os.kill(pid, signal.SIGKILL)
    gone([pid])
    with pytest.raises(WorkerLostError, match="an actor did not answer get_attr: ActorDiedError; the next step replaces it"):
        venv.get_attr("length")
    *_, infos = venv.step(actions(1)[0])
    assert "env_failure" in infos[3]
    assert len(venv.get_attr("length")) == ENVS


@pytest.mark.chaos
def test_poison_that_kills_ends_the_run_and_close_leaves_no_process(ray_session, shared):
    pids = set(shared.env_method("pid"))
    shared.close()
    gone(pids)
    seeds = {episode_seed(0, 0, episode): (1, "kill") for episode in range(20)}
    venv = RayVecEnv(functools.partial(Toy, faults=seeds), 2, workers=1)
    try:
        venv.reset()
        pids = set()
        for _ in range(2):
            pids |= set(venv.env_method("pid"))
            venv.step(actions(1)[0][:2])
        pids |= set(venv.env_method("pid"))
        with pytest.raises(WorkerLostError, match=r"environment 0 \(in one process with environments 1\) failed 3 times in a row"):
            venv.step(actions(1)[0][:2])
    finally:
        venv.close()
    gone(pids)
