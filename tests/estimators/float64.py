"""Bundled tasks in float64, for oracles that need more digits than float32 has."""

from dataclasses import dataclass

import torch

from metaopt import tasks
from metaopt.tasks.source import TaskSource
from metaopt.tasks.task import Task


@dataclass
class Fine:
    """Another source's episodes in float64, all beginning at their beginning."""

    episodes: TaskSource

    def task(self, particle: int, episode: int) -> Task:
        return self.episodes.task(particle, episode).to(dtype=torch.float64)

    def run_seed(self, particle: int, episode: int) -> int:
        return self.episodes.run_seed(particle, episode)

    def stagger(self, particle: int) -> float:
        return 0.0


def source(horizon: int, family: str = "quadratic", template: str = "10x1-gradient") -> Fine:
    """Return episodes of one horizon."""
    return Fine(TaskSource(tasks.get(family), template, (horizon, horizon), seed=3))
