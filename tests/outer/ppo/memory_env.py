"""A task that only memory solves: a cue at step 0, asked for at the end."""

from typing import Any

import gymnasium
import numpy as np


class Recall(gymnasium.Env):
    """Show +1 or -1 once, then noise; pay 1 for naming it at the last step, -1 for the other, 0 before.

    Observations are (cue, noise, whether this is the last step). Without memory the mean return is at most 0.
    """

    def __init__(self, steps: int = 8) -> None:
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.steps, self.step_now, self.cue = steps, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.step_now, self.cue = 0, int(self.np_random.integers(2))
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        last = self.step_now == self.steps - 1
        reward = (1.0 if int(action) == self.cue else -1.0) if last else 0.0
        self.step_now += 1
        return self._seen(), reward, last, False, {}

    def _seen(self) -> np.ndarray:
        cue = 2.0 * self.cue - 1.0 if self.step_now == 0 else 0.0
        return np.array([cue, self.np_random.uniform(-1, 1), float(self.step_now == self.steps - 1)], dtype=np.float32)
