"""Small environments that misbehave on demand; importable by name, so that Ray's processes find them."""

import os
import pickle
import signal
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from metaopt.cluster.env_host import EnvHost
from metaopt.cluster.ray_hosts import Lost


class Died(BaseException):
    """No host catches it: what kills an actor, without killing this process."""


class Toy(gymnasium.Env):
    """A random walk of 3 to 7 steps, ended by truncation where its length is even.

    `faults` maps an episode's seed to (step, kind); step 0 is the reset. It is set from outside, so that a new environment has it too.
    """

    def __init__(self, action_space: spaces.Space[Any] | None = None, faults: dict[int, tuple[int, str]] | None = None) -> None:
        self.mark: Any = False
        pi = spaces.Box(-20, 20, (3,), np.float32)
        self.observation_space = spaces.Dict({"pi": pi, "v": spaces.Box(-np.inf, np.inf, (2, 2), np.float64)})
        self.action_space = action_space or spaces.MultiDiscrete([3, 2])
        self.faults = faults or {}
        self.closed_file: str | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.steps = seed, 0
        self.state = self.np_random.normal(size=7).clip(-5, 5)
        self.length = int(self.np_random.integers(3, 8))
        observation = self._observation(self._fault())
        return observation, {"seed": seed, "length": self.length, "options": options}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.state = 0.9 * self.state + 0.1 * float(np.sum(action)) + 0.1 * self.np_random.normal(size=7).clip(-5, 5)
        kind = self._fault()
        over, even = self.steps >= self.length, self.length % 2 == 0
        reward = float("nan") if kind == "reward" else float(self.state.sum())
        details = {
            "step": self.steps,
            "state": self.state.copy(),
            "large": np.zeros(10_000),
            "lock": threading.Lock(),
            "task": {"name": "toy"},
        }
        return self._observation(kind), reward, over and not even, over and even, details

    def close(self) -> None:
        if self.closed_file:
            with open(self.closed_file, "a") as file:
                file.write(".")

    def pid(self) -> int:
        return os.getpid()

    def threads(self) -> int:
        return torch.get_num_threads()

    def raising(self) -> None:
        raise KeyError("planted in a method")

    def _observation(self, kind: str) -> Any:
        pi, v = self.state[:3].astype(np.float32), self.state[3:].reshape(2, 2)
        if kind == "nan":
            pi = pi * np.float32(np.nan)
        if kind == "shape":
            pi = pi[:2]
        return {"pi": pi, "v": v}

    def _fault(self) -> str:
        at, kind = self.faults.get(self.seed or 0, (-1, ""))
        if at != self.steps:
            return ""
        if kind == "raise":
            raise ArithmeticError("planted\nin two lines")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "die":
            raise Died
        if kind == "stall":
            threading.Event().wait(600)
        return kind


class Twisted(Toy):
    """Has other spaces each time it is made."""

    made = 0

    def __init__(self) -> None:
        Twisted.made += 1
        super().__init__(spaces.Discrete(1 + Twisted.made))


class Nested(Toy):
    """Observes a tuple, which no algorithm takes."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Tuple([spaces.Discrete(2)])


class HostsHere:
    """Stands in for `RayHosts`: the same hosts in this process, where dying is an exception."""

    def __init__(self, make: Any, counts: Sequence[int], threads: int, address: str | None, deadline_s: float) -> None:
        self.make, self.counts, self.threads = make, counts, threads
        self.hosts: dict[int, EnvHost] = {}
        self.fail_to_open = 0
        self.opened = list(self.open().values())

    def open(self) -> dict[int, Any]:
        answers: dict[int, Any] = {}
        for index in range(len(self.counts)):
            if index not in self.hosts:
                self.hosts[index] = EnvHost()
                answers[index] = self.hosts[index].open(self.make, self.counts[index], self.threads)
                if self.fail_to_open:
                    self.fail_to_open -= 1
                    answers[index] = Lost("did not open")
        return answers

    def present(self, index: int) -> bool:
        return index in self.hosts

    def send(self, index: int, method: str, *arguments: Any) -> Any:
        if index not in self.hosts:
            raise RuntimeError("closed")
        try:
            return pickle.loads(pickle.dumps(getattr(self.hosts[index], method)(*arguments)))  # noqa: S301 - our own bytes
        except Died:
            return Lost("died")

    def gather(self, calls: dict[int, Any]) -> dict[int, Any]:
        return dict(calls)

    def ask(self, calls: dict[int, Any], what: str) -> dict[int, Any]:
        return dict(calls)

    def kill(self, indices: Iterable[int]) -> None:
        for index in indices:
            self.hosts.pop(index, None)

    def close(self, orderly: bool = False) -> None:
        self.kill(list(self.hosts))
