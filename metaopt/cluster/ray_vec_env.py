"""A stable-baselines3 `VecEnv` over Ray actors, in lock-step: for its own algorithms, and for tests.

One call an actor and vector step; answers are put together in the order of environments, whatever the order of arrival. An episode's seed
is a function of (run seed, environment, episode), so results depend neither on the number of actors nor on which one holds an environment.

A step that is lost (the actor died or missed its deadline, the environment raised, an observation or reward is not finite) ends its
episode: reward 0, done, `TimeLimit.truncated`, `terminal_observation` = the observation that the action was taken in, the reason in
`info["env_failure"]`. An algorithm that bootstraps truncated episodes then finds the TD error 0 + gamma V(s) - V(s), which is 0 at gamma 1.
The environment is made anew, in a new actor where the old one was lost, and goes on with a new seed.

`n` environments; observations [n, *S] (a dict of them for Dict spaces), rewards float32 [n], dones bool [n].
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from metaopt.cluster.env_host import Arrays, MakeEnv, Stepped, layout
from metaopt.cluster.failures import FailureBudget
from metaopt.cluster.ray_hosts import Lost, RayHosts
from metaopt.errors import ConfigError
from metaopt.seeds import stable_hash

__all__ = ["RayVecEnv", "VecEnvStats", "episode_seed"]

Indices = None | int | Iterable[int]


@dataclass
class VecEnvStats:
    """Counters over the life of a vector environment; steps and episodes are those of single environments.

    Args:
        failures: steps and resets that came to nothing; a lost actor counts once, however many environments it held.
        restarts: actors that were lost.
        rebuilds: environments made anew inside an actor that is well.
    """

    steps: int = 0
    episodes: int = 0
    failures: int = 0
    restarts: int = 0
    rebuilds: int = 0


def episode_seed(seed: int, environment: int, episode: int) -> int:
    """Return the seed [0, 2**63) that `reset` gets for one episode; the first episode of an environment is 0."""
    return stable_hash("ray_vec_env", seed, environment, episode)


class RayVecEnv(VecEnv):
    """Steps `num_envs` Gymnasium environments on `workers` Ray actors, which hold them in equal shares.

    Uses the Ray that this process has already joined, else joins the one at `address`, else starts a private one that ends with `close`.
    Episode statistics are counted here, as `Monitor` does: `info["episode"]` of a last step has "r", "l" and "t" (seconds since the start),
    unless the environment wrote its own. An episode that was lost has none. Of infos, entries travel that are numbers, strings, arrays of
    up to 1024 entries, and containers of these.

    Args:
        env: id for `gymnasium.make`, or a picklable function that makes an environment; `functools.partial(gymnasium.make, id, ...)` with
            arguments. Observations are Box, Discrete, MultiDiscrete, MultiBinary, or a flat Dict of these.
        num_envs: number of environments, [1, inf).
        workers: number of actors, [1, num_envs].
        seed: run seed; `seed()` replaces it.
        threads: torch threads and CPUs of each actor, [1, inf).
        address: "host:port" or "auto" of a running cluster; None for this machine.
        deadline_s: seconds for one call of an actor, which is one step of each of its environments, resets included.
        max_failures: failures allowed in any 1000 steps of single environments.

    Raises:
        ConfigError: a bad number, a cluster too small, an environment that cannot be made, or other versions on an actor.
        WorkerLostError: an actor did not come up; later, one environment failed 3 times in a row, or all together too often.
    """

    def __init__(
        self,
        env: MakeEnv,
        num_envs: int,
        workers: int = 2,
        seed: int = 0,
        threads: int = 1,
        address: str | None = None,
        deadline_s: float = 300.0,
        max_failures: int = 10,
    ) -> None:
        if not 1 <= workers <= num_envs:
            raise ConfigError(f"workers must be in [1, num_envs={num_envs}], got {workers}")
        if threads < 1:
            raise ConfigError(f"threads must be >= 1, got {threads}")
        self.num_envs = num_envs
        self.stats = VecEnvStats()
        self._run_seed = seed
        self._budget = FailureBudget(max_failures)
        self._shares: list[list[int]] = [part.tolist() for part in np.array_split(np.arange(num_envs), workers)]
        self._pending: dict[int, Any] | None = None
        self._episodes = [-1] * num_envs  # which episode each environment plays; -1 before the first
        self._attributes: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        self._returns, self._lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        self._start_s = time.monotonic()
        self._hosts = RayHosts(env, [len(share) for share in self._shares], threads, address, deadline_s)
        try:
            first, *others = [(opened.observation_space, opened.action_space) for opened in self._hosts.opened]
            for other in others:
                if other != first:
                    raise ConfigError(f"environment {env!r} must have the same spaces each time it is made, got {first} and {other}")
            self._layout = layout(first[0])
            self._observations = self._rows()
            super().__init__(num_envs, *first)
        except BaseException:
            self.close()
            raise

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Make `seed` the run seed and every environment's next episode its first; None changes nothing. Return those episodes' seeds."""
        if seed is not None:
            self._run_seed, self._episodes = seed, [-1] * self.num_envs
        return [self._seed(env, 1) for env in range(self.num_envs)]

    def reset(self) -> Any:
        """Begin an episode in every environment, with its next seed; return the observations. A step under way is dropped."""
        self._pending = None
        self._begin(dict.fromkeys(range(self.num_envs), False), self._options)
        self._reset_options()
        return self._returned()

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Send each actor the actions [n, ...] of its environments, and the seeds of the episodes that may begin."""
        actions = np.asarray(actions)
        self._pending = {
            index: self._hosts.send(index, "step", actions[share], [self._seed(env, 1) for env in share])
            for index, share in enumerate(self._shares)
        }

    def step_wait(self) -> Any:
        """Return observations, rewards, dones and infos of the step, as every `VecEnv` does.

        Raises:
            WorkerLostError: too many failures.
        """
        if self._pending is None:
            raise RuntimeError("step_wait needs a step_async before it")
        answers, self._pending = self._hosts.gather(self._pending), None
        before, self._observations = self._observations, self._rows()
        rewards, dones = np.zeros(self.num_envs, dtype=np.float32), np.zeros(self.num_envs, dtype=bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self.stats.steps += self.num_envs
        self._budget.step(self.num_envs)
        lost: dict[int, str] = {}
        anew: dict[int, bool] = {}  # environments that need an episode, and whether they are to be made anew for it
        for index, answer in answers.items():
            share = self._shares[index]
            if isinstance(answer, Lost):
                lost |= self._lose(index, answer.reason)
                anew |= dict.fromkeys(share, False)
                continue
            for name, rows in answer.observations.items():
                self._observations[name][share] = rows
            for place, env in enumerate(share):
                if place in answer.failures:
                    lost[env] = answer.failures[place]
                    self._fail([env], lost[env])
                else:
                    rewards[env], dones[env] = answer.rewards[place], answer.dones[place]
                    infos[env] = self._completed(env, place, answer)
                    if place not in answer.unbegun:
                        continue
                    self._fail([env], answer.unbegun[place])
                anew[env] = True
        after = {name: rows.copy() for name, rows in self._observations.items()} if anew else {}
        interrupted = self._begin(anew, [{}] * self.num_envs)
        for env, reason in (interrupted | lost).items():  # an interrupted step was sound, but its episode cannot go on
            if not dones[env]:
                dones[env] = True
                infos[env] |= {"TimeLimit.truncated": True, "env_failure": reason}
                infos[env]["terminal_observation"] = _single(before if env in lost else after, env)
        return self._returned(), rewards, dones, infos

    def close(self) -> None:
        """Close the environments, end all actors, and Ray when it was started here. May be called twice."""
        self._hosts.close(orderly=self._pending is None)  # else the answer may take as long as a step
        self._pending = None

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Return the attribute of each environment, wherever in its wrappers it is."""
        return self._ask("get_attr", indices, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of environments; those made anew after a failure get it too."""
        for env in self._get_indices(indices):
            self._attributes[env][attr_name] = value
        self._ask("set_attr", indices, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any) -> list[Any]:
        """Return what a method of each environment returns."""
        return self._ask("env_method", indices, method_name, method_args, method_kwargs)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """Return whether environments have that wrapper. They count as having a `Monitor`, for its work is done here."""
        if wrapper_class is Monitor:
            return [True for _ in self._get_indices(indices)]
        return self._ask("env_is_wrapped", indices, wrapper_class)

    def get_images(self) -> Sequence[Any]:
        """Return the image of each environment, None where it renders none."""
        return self.env_method("render") if self.render_mode == "rgb_array" else [None] * self.num_envs

    def _begin(self, anew: Mapping[int, bool], options: Sequence[Mapping[str, Any]]) -> dict[int, str]:
        """Begin the next episode of each environment in `anew`, until all of them play; `anew` says which ones to make anew for it.

        Returns:
            Environments beyond `anew` that lost their episode, because their actor was lost on the way, each with the reason.
        """
        waiting, interrupted = dict(anew), dict[int, str]()
        while waiting:
            for index, answer in self._hosts.open().items():
                if isinstance(answer, Lost):
                    self._lose(index, answer.reason)
            calls, asked = {}, {}
            for index, share in enumerate(self._shares):
                asked[index] = [env for env in share if env in waiting]
                if asked[index] and self._hosts.present(index):
                    calls[index] = self._begin_on(index, asked[index], options, any(waiting[env] for env in asked[index]))
            for index, answer in self._hosts.gather(calls).items():
                if isinstance(answer, Lost):
                    lost = self._lose(index, answer.reason)
                    interrupted |= {env: reason for env, reason in lost.items() if env not in anew}
                    waiting |= dict.fromkeys(lost, False)
                    continue
                for name, rows in answer.observations.items():
                    self._observations[name][asked[index]] = rows
                for row, env in enumerate(asked[index]):
                    self.reset_infos[env] = answer.infos[row]
                    waiting.pop(env)
                    if row in answer.failures:
                        self._fail([env], answer.failures[row])
                        waiting[env] = True
        return interrupted

    def _begin_on(self, index: int, envs: Sequence[int], options: Sequence[Mapping[str, Any]], rebuild: bool) -> Any:
        """Ask an actor to begin the next episode of `envs`; return the reference to its answer."""
        self.stats.rebuilds += len(envs) * rebuild
        for env in envs:
            self._episodes[env] += 1
            self._returns[env], self._lengths[env] = 0.0, 0
        places, seeds = [self._shares[index].index(env) for env in envs], [self._seed(env) for env in envs]
        attributes = [self._attributes[env] for env in envs]
        return self._hosts.send(index, "begin", places, seeds, [options[env] for env in envs], attributes, rebuild)

    def _completed(self, env: int, place: int, answer: Stepped) -> dict[str, Any]:
        """Enter a sound step; return its info, which at the end of an episode has what SB3 asks for."""
        self._returns[env] += answer.rewards[place]
        self._lengths[env] += 1
        step_info = answer.infos[place] | {"TimeLimit.truncated": bool(answer.truncated[place])}
        if answer.dones[place]:
            step_info["terminal_observation"] = _unpacked(answer.last[place])
            elapsed_s = round(time.monotonic() - self._start_s, 6)
            step_info.setdefault("episode", {"r": round(float(self._returns[env]), 6), "l": int(self._lengths[env]), "t": elapsed_s})
            self._returns[env], self._lengths[env] = 0.0, 0
            self._episodes[env] += 1
            self.stats.episodes += 1
            self._budget.complete(env)
            self.reset_infos[env] = answer.begun.get(place, {})
        return step_info

    def _lose(self, index: int, reason: str) -> dict[int, str]:
        """End an actor that is dead, late or odd, and count it; return the reason for each of its environments."""
        self._hosts.kill([index])
        self.stats.restarts += 1
        share = self._shares[index]
        self._fail(share, reason)
        for env in share:  # the actor may have died of the episode after this one, whose seed it held
            self._episodes[env] += 1
        return dict.fromkeys(share, reason)

    def _fail(self, envs: Sequence[int], reason: str) -> None:
        self.stats.failures += 1
        self._budget.fail({env: self._seed(env) for env in envs}, reason)

    def _ask(self, method: str, indices: Indices, *arguments: Any) -> list[Any]:
        """Return what `method` of the hosts answers for environments, in the order of `indices`, by one call an actor."""
        wanted = list(self._get_indices(indices))
        asked = {index: [env for env in share if env in wanted] for index, share in enumerate(self._shares)}
        calls = {
            index: self._hosts.send(index, method, [self._shares[index].index(env) for env in envs], *arguments)
            for index, envs in asked.items()
            if envs
        }
        found: dict[int, Any] = {}
        for index, answer in self._hosts.ask(calls, method).items():
            found.update(zip(asked[index], answer, strict=True))
        return [found[env] for env in wanted]

    def _seed(self, env: int, ahead: int = 0) -> int:
        return episode_seed(self._run_seed, env, self._episodes[env] + ahead)

    def _rows(self) -> Arrays:
        return {name: np.zeros((self.num_envs, *shape), dtype) for name, (shape, dtype) in self._layout.items()}

    def _returned(self) -> Any:
        return _unpacked({name: rows.copy() for name, rows in self._observations.items()})


def _single(rows: Arrays, env: int) -> Any:
    return _unpacked({name: np.array(values[env]) for name, values in rows.items()})


def _unpacked(rows: Arrays) -> Any:
    return rows.get("", rows)
