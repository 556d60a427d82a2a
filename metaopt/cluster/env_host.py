"""What holds environments in a process of its own: steps them, checks their answers, begins episodes. Knows neither Ray nor an algorithm.

Shapes: `k` environments of one host; an observation of shape S becomes a row of an array [k, *S]. A Dict observation is one array a key,
any other one is the single entry "" of such a dict. A place is the index of an environment inside its host, [0, k).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from metaopt.cluster.pool import fixed_threads, versions
from metaopt.errors import ConfigError

__all__ = ["Arrays", "Begun", "EnvHost", "MakeEnv", "Opened", "Stepped", "layout"]

MAX_INFO_ENTRIES = 1024  # of an array inside an info: larger ones stay where they are
MAX_REASON_CHARS = 300

Env: TypeAlias = gymnasium.Env[Any, Any]
Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
MakeEnv: TypeAlias = str | Callable[[], Env]
"""An environment's id for `gymnasium.make`, or a picklable function that makes one."""


class Opened(NamedTuple):
    """A host's greeting."""

    versions: dict[str, str]
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]


class Begun(NamedTuple):
    """First observations [n, *S] and infos of `n` episodes; `failures` says why those at some of the positions did not begin."""

    observations: Arrays
    infos: list[dict[str, Any]]
    failures: dict[int, str]


class Stepped(NamedTuple):
    """One step of each environment.

    Args:
        observations: [k, *S], of the next episode where `dones`; rows of places in `failures` and `unbegun` mean nothing.
        rewards: [k], float64.
        dones: [k], bool: the episode came to its own end.
        truncated: [k], bool: that end is no terminal state.
        infos: of the step, a dict a place.
        last: by place, the last observation of an episode that ended.
        begun: by place, the info of the reset after it.
        failures: by place, why the step came to nothing.
        unbegun: by place, why the next episode did not begin, although the step was sound.
    """

    observations: Arrays
    rewards: npt.NDArray[np.float64]
    dones: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    infos: list[dict[str, Any]]
    last: dict[int, Arrays]
    begun: dict[int, dict[str, Any]]
    failures: dict[int, str]
    unbegun: dict[int, str]


class EnvHost:
    """Holds `k` environments. Whatever one of them raises is an answer, never the end of the host."""

    def open(self, make: MakeEnv, count: int, threads: int) -> Opened:
        """Make the environments and compute with exactly `threads` torch threads from now on.

        Raises:
            ConfigError: they cannot be made, or their observations are not of the kinds in `layout`.
        """
        self._make, self._threads = make, threads
        try:
            with fixed_threads(threads):
                self._envs = [self._made() for _ in range(count)]
        except Exception as error:
            raise ConfigError(f"environment {make!r} cannot be made: {_reason(error)}") from None
        first = self._envs[0]
        self._layout = layout(first.observation_space)
        return Opened(versions(), first.observation_space, first.action_space)

    def begin(
        self,
        places: Sequence[int],
        seeds: Sequence[int],
        options: Sequence[Mapping[str, Any]],
        attributes: Sequence[Mapping[str, Any]],
        rebuild: bool,
    ) -> Begun:
        """Begin an episode in each of `places`, with the seed at the same position; `rebuild` makes the environments anew before.

        `attributes` are set before the reset, for a new environment does not have what was set in the old one.
        """
        observations, failures = self._rows(len(places)), {}
        infos: list[dict[str, Any]] = [{} for _ in places]
        with fixed_threads(self._threads):
            for row, place in enumerate(places):
                try:
                    if rebuild:
                        with suppress(Exception):
                            self._envs[place].close()
                        self._envs[place] = self._made()
                    for name, value in attributes[row].items():
                        self._envs[place].set_wrapper_attr(name, value)
                    found, infos[row] = self._reset(place, seeds[row], options[row])
                    _fill(observations, row, found)
                except Exception as error:  # counted by the driver, and its text is kept
                    failures[row] = _reason(error)
        return Begun(observations, infos, failures)

    def step(self, actions: npt.NDArray[Any], seeds: Sequence[int]) -> Stepped:
        """Take `actions` [k, ...], one an environment; an episode that ends is followed by the one with the seed at its place."""
        count = len(self._envs)
        flags = np.zeros((2, count), dtype=bool)
        result = Stepped(self._rows(count), np.zeros(count), flags[0], flags[1], [{} for _ in range(count)], {}, {}, {}, {})
        actions = np.array(actions)  # what came through Ray's store is read-only
        with fixed_threads(self._threads):
            for place, env in enumerate(self._envs):
                try:
                    observation, reward, terminated, truncated, info = env.step(actions[place])
                    found = self._checked(observation)
                    result.rewards[place] = _finite(float(reward))
                except Exception as error:  # counted by the driver, and its text is kept
                    result.failures[place] = _reason(error)
                    continue
                result.infos[place] = _light(info)
                if terminated or truncated:
                    result.dones[place], result.truncated[place] = True, truncated and not terminated
                    result.last[place] = found
                    try:
                        found, result.begun[place] = self._reset(place, seeds[place], {})
                    except Exception as error:
                        result.unbegun[place] = _reason(error)
                        continue
                _fill(result.observations, place, found)
        return result

    def get_attr(self, places: Sequence[int], name: str) -> list[Any]:
        """Return the attribute of each environment, wherever in its wrappers it is."""
        return [self._envs[place].get_wrapper_attr(name) for place in places]

    def set_attr(self, places: Sequence[int], name: str, value: Any) -> list[Any]:
        """Set the attribute in the wrapper that has it, else in the outermost one."""
        return [self._envs[place].set_wrapper_attr(name, value) for place in places]

    def env_method(self, places: Sequence[int], name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        """Return what each environment's method returns."""
        with fixed_threads(self._threads):
            return [self._envs[place].get_wrapper_attr(name)(*arguments, **named) for place in places]

    def env_is_wrapped(self, places: Sequence[int], wrapper: type[Any]) -> list[bool]:
        """Return for each environment whether a `wrapper` is around it."""
        return [any(isinstance(layer, wrapper) for layer in _layers(self._envs[place])) for place in places]

    def close(self) -> None:
        """Close all environments."""
        for env in self._envs:
            with suppress(Exception):
                env.close()

    def _made(self) -> Env:
        return gymnasium.make(self._make) if isinstance(self._make, str) else self._make()

    def _reset(self, place: int, seed: int, options: Mapping[str, Any]) -> tuple[Arrays, dict[str, Any]]:
        observation, info = self._envs[place].reset(seed=seed, **({"options": dict(options)} if options else {}))
        return self._checked(observation), _light(info)

    def _rows(self, count: int) -> Arrays:
        return {name: np.zeros((count, *shape), dtype) for name, (shape, dtype) in self._layout.items()}

    def _checked(self, observation: Any) -> Arrays:
        """Return the observation as arrays; NaN, infinity and a wrong shape would otherwise go into the policy."""
        found = {}
        for name, (shape, dtype) in self._layout.items():
            value = np.array(observation[name] if name else observation, dtype)
            if value.shape != shape:
                raise ValueError(f"observation {name!r} has shape {value.shape}, its space {shape}")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(f"observation {name!r} is not finite")
            found[name] = value
        return found


def layout(space: spaces.Space[Any]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and dtype of each array of an observation: one a key of a Dict space, else the single entry "".

    Raises:
        ConfigError: a space without a fixed shape, or a Dict inside a Dict.
    """
    entries = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
    found = {}
    for name, entry in entries.items():
        if not isinstance(entry, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise ConfigError(f"observation space must be Box, Discrete, MultiDiscrete, MultiBinary or a Dict of these, got {entry}")
        found[name] = (tuple(entry.shape or ()), np.dtype(entry.dtype))
    return found


def _fill(rows: Arrays, row: int, values: Arrays) -> None:
    for name, value in values.items():
        rows[name][row] = value


def _finite(reward: float) -> float:
    if not math.isfinite(reward):
        raise ValueError(f"reward is {reward}")
    return reward


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:MAX_REASON_CHARS]


def _light(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of an info that may travel at every step: numbers, strings, small arrays, and containers of these."""
    return {name: value for name, value in info.items() if _travels(value)}


def _travels(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.size <= MAX_INFO_ENTRIES and value.dtype.kind != "O"
    if isinstance(value, Mapping):
        return all(_travels(entry) for entry in value.values())
    if isinstance(value, list | tuple):
        return len(value) <= MAX_INFO_ENTRIES and all(map(_travels, value))
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def _layers(env: Env) -> list[Env]:
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers
