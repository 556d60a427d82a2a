"""What workers run in meta-training: shards of antithetic pairs, each bound to one task template.

A shard lives on one worker from outer step to outer step. Its state is a pure function of the config and of the thetas that it has seen, so
that a lost one is rebuilt from the last committed state and the thetas since.
"""

from dataclasses import dataclass
from typing import Any

from metaopt import learners, tasks
from metaopt.cluster import Shared, StateMissing, WorkItem
from metaopt.config import Config
from metaopt.estimators import Estimator, MetaGradient
from metaopt.learners import GradientLearner
from metaopt.learners.update_rules import Theta
from metaopt.seeds import stable_hash
from metaopt.tasks.source import TaskSource

__all__ = ["CatchUp", "ShardSetup", "ShardWork", "ShardWorker", "make_learner", "shard_sources"]


def make_learner(config: Config) -> GradientLearner:
    """Return the learner that a config describes."""
    return learners.get(config.learner.rule, **config.learner.options)


def shard_sources(config: Config) -> tuple[TaskSource, ...]:
    """Return one source of episodes a shard: the shards of a family take its templates in turn, in an order drawn from the seed."""
    sources = []
    for entry in config.tasks:
        family = tasks.get(entry.family)
        order = sorted(family.templates("meta_train"), key=lambda name: stable_hash("template", config.seed, name))
        for i in range(entry.shards):
            seed = stable_hash("shard", config.seed, entry.family, i)
            sources.append(TaskSource(family, order[i % len(order)], entry.horizon, seed, config.augmentations.choices))
    return tuple(sources)


@dataclass(frozen=True)
class CatchUp:
    """How a worker rebuilds a shard.

    Attributes:
        state: the shard's committed state, or None to begin afresh.
        replay: (outer step, theta) of every estimate since, oldest first.
    """

    state: dict[str, Any] | None
    replay: tuple[tuple[int, Shared[Theta]], ...]


@dataclass(frozen=True)
class ShardWork:
    """Payload of a work item; the item's `work_id` is the shard.

    Attributes:
        theta: meta-parameters to estimate at, or None to return the shard's state.
        after: outer step of the shard's previous estimate, or None if it has none.
        catch_up: how to rebuild the shard first.
    """

    theta: Shared[Theta] | None
    after: int | None
    catch_up: CatchUp | None = None


@dataclass(frozen=True)
class ShardSetup:
    """Recipe of a worker of one meta-training run."""

    config: Config
    device: str = "cpu"

    def build(self) -> "ShardWorker":
        """Return a worker that holds no shard yet."""
        return ShardWorker(self.config, self.device)


class ShardWorker:
    """Holds shards and estimates meta-gradients on them."""

    def __init__(self, config: Config, device: str) -> None:
        self._config, self._device = config, device
        self._learner = make_learner(config)
        self._sources = shard_sources(config)
        self._held: dict[int, tuple[int | None, Estimator]] = {}

    def _fresh(self, shard: int) -> Estimator:
        outer = self._config.outer
        seed = stable_hash("estimator", self._config.seed, shard)
        return outer.estimator.recipe.build(
            self._learner, self._sources[shard], outer.shard_particles, seed, self._device, self._config.compile
        )

    def handle(self, item: WorkItem) -> MetaGradient | dict[str, Any]:
        """Return the shard's meta-gradient at the item's outer step, or its state.

        Raises:
            StateMissing: this worker's shard did not see the same estimates.
        """
        shard, work = item.work_id, item.payload
        # Taken out while it changes: after an error the half-changed shard is gone, and is rebuilt.
        after, estimator = self._held.pop(shard, (None, None))
        if work.catch_up is not None:
            estimator, after = self._fresh(shard), work.after
            if work.catch_up.state is not None:
                estimator.load(work.catch_up.state)
            for step, theta in work.catch_up.replay:
                estimator.estimate(self._local(theta), step)
        elif work.after is None:
            estimator, after = self._fresh(shard), None
        if estimator is None or after != work.after:
            raise StateMissing(f"shard {shard} is not here as of outer step {work.after}")
        if work.theta is None:
            self._held[shard] = (after, estimator)
            return estimator.state()
        result = estimator.estimate(self._local(work.theta), item.outer_step)
        self._held[shard] = (item.outer_step, estimator)
        return MetaGradient(**{**vars(result), "grad": {k: v.cpu() for k, v in result.grad.items()}})

    def _local(self, theta: Shared[Theta]) -> Theta:
        return {name: value.to(self._device) for name, value in theta.get().items()}
