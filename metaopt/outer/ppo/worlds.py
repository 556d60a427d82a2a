"""What a policy is trained in: groups of episodes, and which ones there are to draw.

The trainer knows environments by these protocols only. `ControlWorld` is the one that configs mean; its environments are in a package of
their own, which is imported where a worker needs it.

Legend: E episodes of a group, I policy inputs, V critic inputs, A heads, T decisions.
"""

import importlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metaopt.baselines.reference import degenerate, references
from metaopt.cluster import Pool
from metaopt.config import PolicyConfig
from metaopt.config.policy import PolicyStageConfig
from metaopt.errors import ConfigError, WorkerLostError
from metaopt.progress import Progress
from metaopt.tasks import TaskSpec
from metaopt.tasks.support import Support, number_support, template_support

__all__ = ["Bucket", "ControlWorld", "Group", "Met", "Observation", "World"]

_AT_ONCE = 4  # tasks a worker between two reports of progress
_log = logging.getLogger(__name__)

Observation = Mapping[str, NDArray[np.float32]]


class Bucket(Protocol):
    """Which episodes a group has: frozen plain data."""

    @property
    def family(self) -> str: ...
    @property
    def horizon(self) -> int: ...


class Group(Protocol):
    """E episodes that begin together and are played in step; a gymnasium `VectorEnv` without automatic resets is one.

    A pure function of (seed, options, actions). An episode that ends early idles until all have ended.
    """

    def reset(self, *, seed: int, options: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        """Begin the episodes of `options["bucket"]`.

        Returns:
            Observations `pi` [E, I] and `v` [E, V]; `head_mask` [E, A], `decisions` T and, if known, `rejected`, how many of the bucket's
            tasks are left out.

        Raises:
            TaskError: the bucket's tasks cannot be scored.
        """

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Make one decision a run by actions [E, A]: observations, rewards, terminated, truncated [E]; `failed` [E] if known."""


@dataclass(frozen=True)
class Met:
    """What an artifact's card says about the tasks of its training: their hashes, and what they cover, axis by axis."""

    task_hashes: tuple[str, ...]
    support: Mapping[str, list[Any]]


class World(Protocol):
    """Picklable recipe of environments, and the distribution of what is played in them."""

    @property
    def critic_inputs(self) -> int:
        """V."""

    def make(self) -> Group:
        """Return an environment."""

    def draw(self, seed: int, stage: PolicyStageConfig) -> Bucket:
        """Return the bucket that belongs to a seed, of those that a stage of the curriculum admits."""

    def met(self) -> "Met":
        """Return what the policy meets in training."""

    def prepare(self, pool: Pool, progress: Progress | None, stopped: Callable[[], bool]) -> Mapping[str, int]:
        """Compute on the pool what episodes would wait for, until `stopped`; return how many tasks cannot be scored, by reason."""


@dataclass(frozen=True)
class ControlWorld:
    """Hyperparameter control over the config's families, from their meta_train templates."""

    config: PolicyConfig

    @property
    def critic_inputs(self) -> int:
        """Numbers that only the critic sees."""
        inputs: int = _environments().CRITIC_INPUTS
        return inputs

    def make(self) -> Group:
        """Return E inner runs whose hyperparameters are controlled."""
        learner, outer = self.config.learner, self.config.outer
        settings = _environments().Settings(
            table=learner.table,
            knobs=learner.knobs,
            registers=learner.registers,
            knob_missing=outer.missing.knobs,
            eval_missing=outer.missing.eval_loss,
            registers_missing=outer.missing.registers,
            perturbed=outer.start_perturbation,
            highest_lr=outer.highest_lr,
            against=outer.against,
            rescue=outer.rescue,
        )
        group: Group = _environments().GroupEnv(outer.group_runs, settings)
        return group

    @cached_property
    def _pool(self) -> Any:
        config, family = self.config, _environments().PoolFamily
        families = tuple(family(task.family, task.horizon, task.weight, task.templates or 0) for task in config.tasks)
        # Not the run's seed: runs of other seeds meet the same tasks, whose reference curves are there already.
        return _environments().TaskPool(families, config.outer.decisions, config.outer.template_tasks, inner=config.learner.inner)

    def draw(self, seed: int, stage: PolicyStageConfig) -> Bucket:
        """Return a bucket: a family by its weight, a template, one of its horizons, and decisions, log-uniform."""
        bucket: Bucket = self._pool.bucket(seed, self.config.outer.group_runs, stage.families, stage.most_decisions)
        return bucket

    def met(self) -> Met:
        """Return the hashes of all tasks, and the support of their templates and horizons."""
        specs = self._specs()
        horizons = [spec.horizon for spec in specs]
        support: Support = {
            **(template_support(sorted({f"{spec.family}/{spec.template}" for spec in specs})) or {}),
            "horizon": [min(horizons), max(horizons)],
            **number_support([()]),
        }
        return Met(tuple(sorted({spec.hash for spec in specs})), support)

    def prepare(self, pool: Pool, progress: Progress | None, stopped: Callable[[], bool]) -> Mapping[str, int]:
        """Compute the reference curves that no store has yet, and keep them where workers of this machine find them.

        A worker computes what it lacks by itself, but two may then do the same, and nobody sees how far they are.
        """
        specs, reasons = self._specs(), Counter[str]()
        size = _AT_ONCE * pool.workers
        for begin in range(0, len(specs), size):
            if stopped():
                break
            if progress is not None:
                progress("reference curve", begin, len(specs))
            try:
                reasons += degenerate(references(specs[begin : begin + size], pool=pool), self.config.outer.against)
            except WorkerLostError as error:  # whoever draws the task meets the same, and gives its group up
                _log.warning("%s", error)
        if progress is not None and not stopped():
            progress("reference curve", len(specs), len(specs))
        return dict(sorted(reasons.items()))

    def _specs(self) -> list[TaskSpec]:
        return [spec for buckets in self._pool.kinds.values() for bucket in buckets for spec in bucket.specs()]


def _environments() -> Any:
    try:
        return importlib.import_module("metaopt_envs")
    except ImportError as error:
        raise ConfigError(f"a policy is trained in the package metaopt_envs, which cannot be imported: {error}") from error
