"""Join a Ray, or start a private one, and see that what is wanted of it can be had."""

import logging
import math
import os
import secrets
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from metaopt.errors import ConfigError

__all__ = ["START_TIMEOUT_S", "fit", "last_line", "start_ray"]

START_TIMEOUT_S = 180.0  # of actors, which a busy cluster takes its time to place
PROBE_TIMEOUT_S = 5.0


def start_ray(address: str | None, cpus: int) -> bool:
    """Make sure that this process has joined a Ray; return whether it was started here (then the caller shuts it down).

    A private Ray binds to this machine, has no dashboard and refuses clients without this process's random token, which is in no file.
    The token must be in the environment before the first `import ray`: in a process that imported Ray earlier, the mode stays as it was.

    Args:
        address: "host:port", "auto", or None for a private Ray.
        cpus: logical CPUs of a private Ray; more than the machine has are allowed.

    Raises:
        ConfigError: nothing answers at `address`.
    """
    if address is None and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if address is None:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
            return True
        _probe(address)
        ray.init(address=address, **quiet)
        return False
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "a private Ray could not start" if address is None else f"no Ray cluster answers at {address!r}"
        raise ConfigError(f"{where}: {last_line(error)}") from error
    finally:
        for number, handler in handlers.items():  # Ray's own handler would end the driver before it commits a checkpoint
            with suppress(ValueError):  # not the main thread
                signal.signal(number, handler)


def _probe(address: str) -> None:
    """Refuse a dead address in seconds: Ray's client would go on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        if address != "auto":
            raise ConfigError(f'address must be "auto" or "host:port", got {address!r}')
        return
    with socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT_S):
        pass


def fit(workers: int, threads: int, device: str) -> float:
    """Return the GPU share of one worker, after comparing the request with what the cluster has in total.

    A request that can never be met would wait for ever [measured].
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    share = 0.0
    if device.startswith("cuda"):
        if gpus == 0:
            raise ConfigError(f"device {device!r}: the cluster has no GPU; use --device cpu")
        share = min(1.0, 1.0 / math.ceil(workers / gpus))
    places = sum(int(node.get("CPU", 0.0) // threads) for node in nodes)
    if places < workers:
        cpus = sum(node.get("CPU", 0.0) for node in nodes)
        raise ConfigError(
            f"{workers} workers of {threads} CPUs do not fit:"
            f" the cluster has {cpus:g} CPUs on {len(nodes)} nodes, room for {places} workers"
        )
    return share


def last_line(error: BaseException) -> str:
    """Return what an error of Ray's says at its end, below the traceback of another process."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
