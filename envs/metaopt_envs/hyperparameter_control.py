"""One episode of hyperparameter control as a gymnasium environment: `metaopt/HyperparameterControl-v0`."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from metaopt.errors import TaskError
from metaopt.seeds import stable_hash
from metaopt_envs.group_env import GroupEnv, Observation, action_space, observation_space
from metaopt_envs.settings import Bucket, Settings
from metaopt_envs.task_pool import PoolFamily, TaskPool

__all__ = ["HyperparameterControl"]

_REDRAWS = 16  # about one task in four cannot be scored


class HyperparameterControl(gymnasium.Env[Observation, NDArray[np.int64]]):
    """Train a small model; a few times on the way, turn the hyperparameters of its optimizer.

    An episode is one inner run of N steps, at the end of which `terminated` is set: the policy sees its progress, so the horizon is part
    of the task and `truncated` is never set. The reward comes at the end, and says what the final held-out loss is worth against AdamW.
    0 is as good as AdamW at 1e-3 with the same steps; log 2, the most, is where AdamW needs twice as many or more; -3 is a loss that is
    not finite.

    Args:
        families: names of task families, from whose meta_train templates episodes are drawn.
        horizon: closed range of inner steps.
        decisions: closed range of decisions an episode.
        settings: see `Settings`; keyword arguments of it may be given instead.

    `reset(options={"bucket": Bucket(...)})` names the runs; see `GroupEnv` for the rest of options and info. Of the tasks that are drawn
    some cannot be scored, because the baseline's curve has no shape that can be inverted: another one is drawn in their place, and `info`
    counts them under `rejected`. Running many episodes one by
    one wastes most of the time on small operations: `GroupEnv` does E of them at once.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (gymnasium's own way)

    def __init__(
        self,
        families: Sequence[str] = ("quadratic", "digits_mlp"),
        horizon: tuple[int, int] = (64, 256),
        decisions: tuple[int, int] = (4, 16),
        settings: Settings | None = None,
        **given: Any,
    ) -> None:
        self.settings = settings or Settings(**given)
        pool = TaskPool(tuple(PoolFamily(name, horizon) for name in families), decisions)
        self._runs = GroupEnv(1, self.settings, lambda seed: pool.bucket(seed, 1))
        self.observation_space, self.action_space = observation_space(), action_space(self.settings)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**62))
        for redraw in range(_REDRAWS):
            try:
                observation, info = self._runs.reset(seed=stable_hash("redraw", episode, redraw), options=options)
            except TaskError:
                if redraw == _REDRAWS - 1 or "bucket" in (options or {}):
                    raise
            else:
                break
        return _first(observation), _of_one(info) | {"rejected": redraw}

    def step(self, action: NDArray[np.int64]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Turn the knobs and train on to the next decision."""
        observation, reward, terminated, truncated, info = self._runs.step(np.asarray(action)[None])
        return _first(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), _of_one(info)


def _first(observation: Observation) -> Observation:
    return {name: value[0].copy() for name, value in observation.items()}


def _of_one(info: dict[str, Any]) -> dict[str, Any]:
    return {name: value[0] if isinstance(value, np.ndarray) else value for name, value in info.items() if name != "bucket"} | (
        {"bucket": info["bucket"]} if isinstance(info.get("bucket"), Bucket) else {}
    )
