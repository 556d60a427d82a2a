"""Estimate the memory that a config needs, to refuse an absurd one before it starts."""

import os
from functools import cache

from metaopt import seeds, tasks
from metaopt.config.loader import AnyConfig
from metaopt.config.policy import PolicyConfig
from metaopt.config.schema import Config
from metaopt.errors import ConfigError

__all__ = ["check_memory", "estimate_bytes", "machine_bytes"]

# Floats a weight: what a particle keeps between steps (weights, moments, factored moments), and what one step of a shard needs on top
# (features and two hidden layers of the per-parameter network). Measured maxima, rounded up; the estimate is for orders of magnitude.
_KEPT_FLOATS = 10
_WORKING_FLOATS = 128
_FLOAT_BYTES = 4
_REPORTED_ROWS = 8  # four particles of a template at the start's theta and at the result
_REGISTERS = 3  # each a copy of what an inner run keeps
_LAYER_FLOATS = 64  # activations of both trunks and their derivatives a hidden unit: the update holds one batch at a time
_DECISION_FLOATS = 512  # a decision's inputs, those of the critic, and what the update keeps of it, before the network's own


def estimate_bytes(config: Config) -> int:
    """Return about how many bytes the particles of all shards and one step of one piece of work take, on all workers together.

    A piece of work is a step of a shard or one of validation: its particles for theta, and for what theta is compared with.
    """
    pair = 2 * config.outer.shard_particles
    families = [task.family for task in config.tasks]
    largest = [_largest_model(family, "meta_train") for family in families]
    kept = sum(task.shards * pair * weights for task, weights in zip(config.tasks, largest, strict=True))
    step = max([pair * max(largest), *(_REPORTED_ROWS * _largest_model(family, "meta_valid") for family in families)])
    if (validation := config.validation) is not None:
        rows = validation.particles * (1 if config.outer.average is None else 2)
        step = max([step, *(rows * _largest_model(family, "meta_valid") for family in validation.tasks or families)])
    return _FLOAT_BYTES * (_KEPT_FLOATS * kept + _WORKING_FLOATS * step)


def estimate_policy_bytes(config: PolicyConfig) -> int:
    """Return about how many bytes one worker takes for a group of episodes of a policy, and the driver for an update.

    How many workers there are is not the config's to say: this is the least.
    """
    outer, kept = config.outer, _KEPT_FLOATS * (1 + (_REGISTERS if config.learner.registers else 0))
    largest = max(_largest_model(task.family, "meta_train") for task in config.tasks)
    group = outer.group_runs * largest * (kept + _WORKING_FLOATS)
    decisions = outer.decisions_per_step or outer.groups_per_step * outer.group_runs * outer.decisions[1]
    update = decisions * (_DECISION_FLOATS + _LAYER_FLOATS * config.learner.hidden // outer.ppo.batches)
    return _FLOAT_BYTES * (group + update)


def machine_bytes() -> int:
    """Return the physical memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(config: AnyConfig, limit_bytes: int) -> None:
    """Do nothing if the config fits.

    Raises:
        ConfigError: the estimate is above `limit_bytes`.
    """
    if isinstance(config, PolicyConfig):
        if (needed := estimate_policy_bytes(config)) > limit_bytes:
            outer = config.outer
            raise ConfigError(
                f"outer.group_runs = {outer.group_runs} runs in {outer.groups_per_step} groups of up to {outer.decisions[1]} decisions "
                f"need about {needed / 2**30:,.1f} GiB, and there are {limit_bytes / 2**30:,.1f} GiB: lower one of the three"
            )
        return
    needed = estimate_bytes(config)
    if needed > limit_bytes:
        shards = sum(task.shards for task in config.tasks)
        also = "" if config.validation is None else f" and validation.particles = {config.validation.particles}"
        raise ConfigError(
            f"outer.shard_particles = {config.outer.shard_particles} pairs in {shards} shards{also} need about {needed / 2**30:,.1f} GiB, "
            f"and there are {limit_bytes / 2**30:,.1f} GiB: lower {'them' if also else 'outer.shard_particles'} or tasks.*.shards"
        )


@cache
def _largest_model(family: str, split: str) -> int:
    """Return the most weights that a template of a split of the family has, 0 if there is none."""
    source = tasks.get(family)
    built = [source.build(source.sample(template, 0, (1, 1))) for template in source.templates(split)]
    return max((sum(value.numel() for value in task.init(seeds.key(0)).values()) for task in built), default=0)
