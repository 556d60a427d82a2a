"""Turn the name of a device into one that this machine has."""

import torch

from metaopt.errors import ConfigError
from metaopt.names import nearest

__all__ = ["available_devices", "resolve_device"]


def available_devices() -> tuple[str, ...]:
    """Return what `--device` takes on this machine, best first; always ends with `cpu`."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return (*cuda, *mps, "cpu")


def resolve_device(name: str) -> torch.device:
    """Return the device of `auto`, `cpu`, `cuda`, `cuda:i` or `mps`; `auto` is the best that there is.

    Raises:
        ConfigError: not a device's name, or not on this machine.
    """
    here = available_devices()
    wanted = {"auto": here[0], "cuda": "cuda:0"}.get(name, name)
    if wanted in here:
        return torch.device(wanted)
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
        raise ConfigError(f"device {name!r} is unknown{nearest(name, ('auto', 'cpu', 'cuda', 'cuda:0', 'mps'))}")
    raise ConfigError(f"device {name!r} is not on this machine; there are: {', '.join(here)}")
