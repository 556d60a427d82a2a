"""Curricula: short runs of cheap tasks first. Which horizons and which shards a stage has, as pure functions of the config.

Source: Metz et al., 2022, "VeLO: training versatile learned optimizers by scaling up" (cheap tasks, then larger ones, then long runs).
"""

import math
from collections.abc import Sequence

import torch

from metaopt import seeds
from metaopt.config.outer import OuterConfig
from metaopt.tasks.source import TaskSource
from metaopt.tasks.task import Family

__all__ = ["Curriculum", "stage_horizons", "template_cost"]


def stage_horizons(outer: OuterConfig, horizon: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return the range of horizons in each stage: the longest one is scaled, and never below the shortest. Empty without a curriculum."""
    low, high = horizon
    return tuple((low, max(low, round(high * stage.horizon_frac))) for stage in outer.curriculum)


def template_cost(family: Family, template: str) -> float:
    """Return about how many multiplications one inner step takes: weights times the examples of a batch."""
    task = family.build(family.sample(template, 0, (1, 1)))
    weights = sum(value.numel() for value in task.init(seeds.key("cost")).values())
    batch = task.batch(seeds.key("cost"), torch.zeros((), dtype=torch.int64))
    return float(weights * max((len(value) for value in batch.values() if value.dim() > 1), default=1))


class Curriculum:
    """Which shards work in which outer step.

    Args:
        outer: with the stages; a stage admits the cheapest `template_frac` of the templates of all sources, ties by name.
        sources: of the shards.
    """

    def __init__(self, outer: OuterConfig, sources: Sequence[TaskSource]) -> None:
        self._outer = outer
        self._names = [(source.family.name, source.template) for source in sources]
        self._order: list[tuple[str, str]] = []
        if any(stage.template_frac < 1 for stage in outer.curriculum):
            costs = {name: template_cost(source.family, source.template) for name, source in zip(self._names, sources, strict=True)}
            self._order = sorted(costs, key=lambda name: (costs[name], name))

    def admitted(self, step: int, left: Sequence[int]) -> list[int]:
        """Return the shards of `left` that may work at outer step `step`; all of them if every admitted one was given up."""
        if not self._order:
            return list(left)
        share = self._outer.curriculum[self._outer.stage_at(step)].template_frac
        names = set(self._order[: math.ceil(share * len(self._order))])
        return [shard for shard in left if self._names[shard] in names] or list(left)
