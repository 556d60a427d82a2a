"""Estimate the memory that a config needs, to refuse an absurd one before it starts."""

import os
from functools import cache

from metaopt import seeds, tasks
from metaopt.config.schema import Config
from metaopt.errors import ConfigError

__all__ = ["check_memory", "estimate_bytes", "machine_bytes"]

# Floats a weight: what a particle keeps between steps (weights, moments, factored moments), and what one step of a shard needs on top
# (features and two hidden layers of the per-parameter network). Measured maxima, rounded up; the estimate is for orders of magnitude.
_KEPT_FLOATS = 10
_WORKING_FLOATS = 128
_FLOAT_BYTES = 4


def estimate_bytes(config: Config) -> int:
    """Return about how many bytes the particles of all shards and one step of one shard take, on all workers together."""
    pair = 2 * config.outer.shard_particles
    largest = [_largest_model(task.family, task.horizon) for task in config.tasks]
    kept = sum(task.shards * pair * weights for task, weights in zip(config.tasks, largest, strict=True))
    return _FLOAT_BYTES * (_KEPT_FLOATS * kept + _WORKING_FLOATS * pair * max(largest))


def machine_bytes() -> int:
    """Return the physical memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(config: Config, limit_bytes: int) -> None:
    """Do nothing if the config fits.

    Raises:
        ConfigError: the estimate is above `limit_bytes`.
    """
    needed = estimate_bytes(config)
    if needed > limit_bytes:
        shards = sum(task.shards for task in config.tasks)
        raise ConfigError(
            f"outer.shard_particles = {config.outer.shard_particles} pairs in {shards} shards need about {needed / 2**30:,.1f} GiB, "
            f"and there are {limit_bytes / 2**30:,.1f} GiB: lower outer.shard_particles or tasks.*.shards"
        )


@cache
def _largest_model(family: str, horizon: tuple[int, int]) -> int:
    """Return the most weights that a meta_train template of the family has."""
    source = tasks.get(family)
    built = [source.build(source.sample(template, 0, horizon)) for template in source.templates("meta_train")]
    return max(sum(value.numel() for value in task.init(seeds.key(0)).values()) for task in built)
