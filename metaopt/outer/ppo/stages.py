"""Where a run is in its curriculum. A stage ends when the policy is good enough, or when its part of the outer steps is done.

Source: easy tasks first, as the released configurations of Almeida et al., 2021 (2106.00958) have it; when a stage ends is our choice.
"""

from typing import Any

from metaopt.config.policy import PolicyOuterConfig, PolicyStageConfig

__all__ = ["WINDOW", "Stages"]

WINDOW = 10  # outer steps whose mean reward is compared: that of a single one is mostly which tasks were drawn


class Stages:
    """The stage of a run, and the mean rewards that it has seen in it."""

    def __init__(self, outer: PolicyOuterConfig) -> None:
        self._outer = outer
        self._stages = outer.curriculum or (PolicyStageConfig(),)
        self.index = 0
        self._rewards: list[float] = []

    @property
    def stage(self) -> PolicyStageConfig:
        """What is admitted now."""
        return self._stages[self.index]

    def after(self, done: int, reward: float | None) -> None:
        """Take in that `done` outer steps are done, the last one with this mean reward (None: nothing was played)."""
        if reward is not None:
            self._rewards = [*self._rewards, reward][-WINDOW:]
        stage = self.stage
        if stage.until_frac is None:
            return
        good = stage.until_reward is not None and len(self._rewards) == WINDOW and sum(self._rewards) / WINDOW > stage.until_reward
        if good or done >= stage.until_frac * self._outer.steps:
            self.index += 1
            self._rewards = []

    def state(self) -> dict[str, Any]:
        """Return everything, for a checkpoint."""
        return {"index": self.index, "rewards": list(self._rewards)}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.index, self._rewards = state["index"], list(state["rewards"])
