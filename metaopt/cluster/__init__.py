"""Pools of workers: one protocol, in this process or on Ray."""

from metaopt.cluster.local import LocalPool
from metaopt.cluster.pool import (
    Arrived,
    Pool,
    PoolStats,
    Reason,
    Recover,
    Setup,
    Shared,
    Source,
    StateMissing,
    Worker,
    WorkItem,
    WorkResult,
    versions,
)
from metaopt.errors import ConfigError

__all__ = [
    "Arrived",
    "LocalPool",
    "Pool",
    "PoolStats",
    "Reason",
    "Recover",
    "Setup",
    "Shared",
    "Source",
    "StateMissing",
    "WorkItem",
    "WorkResult",
    "Worker",
    "make_pool",
    "versions",
]


def make_pool(workers: int, address: str | None, setup: Setup, threads: int = 1, device: str = "cpu") -> Pool:
    """Return a pool: in this process for `workers=0`, else `workers` Ray actors on this machine or on the cluster at `address`.

    Args:
        workers: number of workers, [0, inf).
        address: a running Ray cluster ("host:port" or "auto"); None starts a private one that ends with the pool.
        setup: picklable recipe of a worker.
        threads: torch threads of each worker, [1, inf); part of the result.
        device: "cpu", "cuda", "cuda:0", "mps": a worker on "cuda" asks the cluster for its share of a GPU.

    Raises:
        ConfigError: a bad number, an unreachable address, a cluster too small for the request, or other versions on a worker.
        WorkerLostError: a worker did not come up.
    """
    if workers < 0:
        raise ConfigError(f"workers must be >= 0, got {workers}")
    if threads < 1:
        raise ConfigError(f"threads must be >= 1, got {threads}")
    if workers == 0:
        if address is not None:
            raise ConfigError(f"address {address!r} needs workers >= 1, got 0: give the number of workers to start on that cluster")
        return LocalPool(setup, threads)
    from metaopt.cluster.ray_pool import RayPool  # Ray is slow to import and not everybody needs it

    return RayPool(workers, address, setup, threads, device)
