"""What workers run in meta-training: shards of antithetic pairs, each bound to one task template, and pieces of meta-validation.

A shard lives on one worker from outer step to outer step of a phase. Its state is a pure function of the config and of the thetas that it
has seen, so that a lost one is rebuilt from the last committed state and the thetas since.
"""

from dataclasses import dataclass
from typing import Any

from metaopt import tasks
from metaopt.cluster import Shared, StateMissing, WorkItem
from metaopt.config import Config
from metaopt.estimators import Estimator, MetaGradient
from metaopt.learners import Learner
from metaopt.learners.imitation import ImitationLearner, PlainLoss
from metaopt.learners.update_rules import Theta
from metaopt.outer.curriculum import stage_horizons
from metaopt.outer.phases import PartlyFrozen, section_of
from metaopt.outer.validation import Measured, ValidationWork, measure
from metaopt.seeds import stable_hash
from metaopt.tasks.source import TaskSource

__all__ = ["CatchUp", "ShardSetup", "ShardWork", "ShardWorker", "check_buildable", "make_learner", "shard_sources"]


def make_learner(config: Config) -> Learner:
    """Return the learner that a config describes."""
    return config.learner.build()


def shard_sources(config: Config, phase: int = 0) -> tuple[TaskSource, ...]:
    """Return one source of episodes a shard: the shards of a family take its templates in turn, in an order drawn from the seed.

    A shard keeps its template in every phase, and meets new tasks of it.
    """
    sources, later = [], ("phase", phase) if phase else ()
    section = section_of(config, phase)
    augmentations = config.augmentations.choices if section.imitate is None else (*config.augmentations.choices, PlainLoss())
    for entry in config.tasks:
        family = tasks.get(entry.family)
        order = sorted(family.templates("meta_train"), key=lambda name: stable_hash("template", config.seed, name))
        for i in range(entry.shards):
            seed, horizon = stable_hash("shard", config.seed, entry.family, i, *later), section.horizon or entry.horizon
            stages = stage_horizons(config.outer, horizon)
            sources.append(TaskSource(family, order[i % len(order)], horizon, seed, augmentations, stages))
    return tuple(sources)


def check_buildable(config: Config, device: str) -> None:
    """Raise ConfigError if the estimator cannot work with the learner, the tasks or `compile`; nothing runs."""
    config.outer.estimator.recipe.build(make_learner(config), shard_sources(config)[0], 1, 0, device, config.compile)


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
        theta: meta-parameters to estimate at, those that the phase trains, or None to return the shard's state.
        after: outer step of the shard's previous estimate in this phase, or None if it has none.
        catch_up: how to rebuild the shard first.
        phase: number of the phase.
        frozen: meta-parameters that the phase keeps, the same in all its steps; None for none.
    """

    theta: Shared[Theta] | None
    after: int | None
    catch_up: CatchUp | None = None
    phase: int = 0
    frozen: Shared[Theta] | None = None


@dataclass(frozen=True)
class ShardSetup:
    """Recipe of a worker of one meta-training run."""

    config: Config
    device: str = "cpu"

    def build(self) -> "ShardWorker":
        """Return a worker that holds no shard yet."""
        return ShardWorker(self.config, self.device)


class ShardWorker:
    """Holds shards and estimates meta-gradients on them; measures thetas on validation particles."""

    def __init__(self, config: Config, device: str) -> None:
        self._config, self._device = config, device
        self._learner = make_learner(config)
        self._phase: int | None = None  # none yet
        self._trained: Learner = self._learner
        self._sources = shard_sources(config)
        self._held: dict[int, tuple[int | None, Estimator]] = {}

    def _enter(self, work: ShardWork) -> None:
        """Prepare for the phase of `work`: its sources, and the learner with its frozen part."""
        if work.phase != self._phase:
            frozen = {} if work.frozen is None else self._local(work.frozen)
            trained = PartlyFrozen(self._learner, frozen) if frozen else self._learner
            imitate = section_of(self._config, work.phase).imitate
            self._trained = trained if imitate is None else ImitationLearner(trained, imitate.build())
            self._sources = shard_sources(self._config, work.phase)
            self._phase = work.phase

    def _fresh(self, shard: int) -> Estimator:
        outer, later = self._config.outer, ("phase", self._phase) if self._phase else ()
        seed = stable_hash("estimator", self._config.seed, shard, *later)
        source, pairs = self._sources[shard], outer.shard_particles
        return outer.estimator.recipe.build(self._trained, source, pairs, seed, self._device, self._config.compile)

    def handle(self, item: WorkItem) -> MetaGradient | Measured | dict[str, Any]:
        """Return the shard's meta-gradient at the item's outer step, its state, or what was measured on validation particles.

        Raises:
            StateMissing: this worker's shard did not see the same estimates.
        """
        shard, work = item.work_id, item.payload
        if isinstance(work, ValidationWork):
            return measure(self._learner, work.thetas.get(), work.job, self._device)
        self._enter(work)
        # Taken out while it changes: after an error the half-changed shard is gone, and is rebuilt.
        after, estimator = self._held.pop(shard, (None, None))
        if work.catch_up is not None:
            estimator, after = self._fresh(shard), work.after
            if work.catch_up.state is not None:
                estimator.load(work.catch_up.state)
            for step, theta in work.catch_up.replay:
                self._estimate(estimator, shard, theta, step)
        elif work.after is None:
            estimator, after = self._fresh(shard), None
        if estimator is None or after != work.after:
            raise StateMissing(f"shard {shard} is not here as of outer step {work.after}")
        if work.theta is None:
            self._held[shard] = (after, estimator)
            return estimator.state()
        result = self._estimate(estimator, shard, work.theta, item.outer_step)
        self._held[shard] = (item.outer_step, estimator)
        return MetaGradient(**{**vars(result), "grad": {k: v.cpu() for k, v in result.grad.items()}})

    def _estimate(self, estimator: Estimator, shard: int, theta: Shared[Theta], step: int) -> MetaGradient:
        self._sources[shard].stage = self._config.outer.stage_at(step)
        return estimator.estimate(self._local(theta), step)

    def _local(self, theta: Shared[Theta]) -> Theta:
        return {name: value.to(self._device) for name, value in theta.get().items()}
