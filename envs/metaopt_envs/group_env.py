"""Hyperparameter control as a gymnasium vector environment: E episodes of one bucket in step."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metaopt.errors import ConfigError
from metaopt.learners.policies.knobs import find_table
from metaopt.learners.policies.observation import INPUTS
from metaopt_envs.critic_inputs import CRITIC_INPUTS
from metaopt_envs.group import Group, Seen
from metaopt_envs.settings import Bucket, Settings

__all__ = ["GroupEnv", "action_space", "observation_space"]

Observation = dict[str, NDArray[np.float32]]
Draw = Callable[[int], Bucket]


def observation_space() -> spaces.Space[Any]:
    """Return the space of one run's observation: `pi` for the policy, `v` for the critic alone."""
    return spaces.Dict({name: spaces.Box(-20.0, 20.0, (size,), np.float32) for name, size in (("pi", INPUTS), ("v", CRITIC_INPUTS))})


def action_space(settings: Settings) -> spaces.Space[NDArray[np.int64]]:
    """Return the space of one run's actions: a register operation and a relative change of each knob."""
    return spaces.MultiDiscrete(list(find_table(settings.table).nvec))


class GroupEnv(VectorEnv[Observation, NDArray[np.int64], Any]):
    """E runs of one shape and length, advanced by one tensor program.

    All episodes begin and end together, so there is no automatic reset: call `reset` when every run has terminated. One that fails early
    is terminated with the lowest reward and idles, with reward 0, until the others are done. The reward comes at the end.

    Args:
        runs: E.
        settings: what the episodes have in common.
        draw: the bucket of a reset by its seed; `reset(options={"bucket": ...})` names one instead.

    `info` of `reset` has `head_mask` [E, 9] (what the policy may turn: registers, then knobs), `decisions`, `values`, `bucket`, and how
    many of its tasks were `rejected` because they cannot be scored; of `step`, `values` [E, 8], `failed` [E], and at the end `final_loss`
    [E] (normalised, on the half of the held-out examples that scores).

    A pure function of (seed, bucket, settings, actions).
    """

    def __init__(self, runs: int, settings: Settings, draw: Draw | None = None) -> None:
        self.num_envs, self.settings, self._draw = runs, settings, draw
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space, self.single_action_space = observation_space(), action_space(settings)
        self.observation_space = batch_space(self.single_observation_space, runs)
        self.action_space = batch_space(self.single_action_space, runs)
        self.group: Group | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin E episodes: of the bucket in `options`, else of one that is drawn.

        Options: `bucket`; `given`, knob values [8] to start from without perturbation; `missing`, False to leave nothing out at random.

        Raises:
            ConfigError: there is neither a bucket nor anything to draw one from, or an option is unknown.
            TaskError: the baselines of the bucket's tasks cannot be scored against.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        episode = seed if seed is not None else int(self.np_random.integers(2**62))
        bucket = options.pop("bucket", None) or (None if self._draw is None else self._draw(episode))
        if bucket is None:
            raise ConfigError('options must have a "bucket", got none, and there is no distribution to draw one from')
        given, missing = options.pop("given", None), options.pop("missing", True)
        if options:
            raise ConfigError(f"options of reset are bucket, given and missing, got {', '.join(map(repr, options))}")
        self.group = Group(bucket, self.settings, episode, self.num_envs, given, missing)
        self._over = np.zeros(self.num_envs, np.bool_)
        seen = self.group.begin()
        info = {
            "head_mask": self.group.head_mask.numpy(),
            "decisions": len(self.group.decisions),
            "values": self.group.values.numpy(),
            "bucket": bucket,
            "rejected": len(self.group.scorer.rejected),
        }
        return _observation(seen), info

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Turn the knobs of each run and train on to the next decision."""
        if self.group is None or self._over.all():
            raise gymnasium.error.ResetNeeded("all runs have ended: call reset")
        seen = self.group.act(torch.as_tensor(np.asarray(actions), dtype=torch.int64))
        ended = seen.ended.numpy().copy()
        self._over = ended
        info: dict[str, Any] = {"values": self.group.values.numpy(), "failed": seen.failed.numpy()}
        if seen.final_loss is not None:
            info["final_loss"] = seen.final_loss.numpy()
        return _observation(seen), seen.reward, ended, np.zeros_like(ended), info


def _observation(seen: Seen) -> Observation:
    return {"pi": seen.pi.numpy(), "v": seen.v.numpy()}
