"""Parameter groups of a hypergradient optimizer: their hyperparameters by name, where scopes begin, and what is refused.

A group keeps its hyperparameters as they were when it was added under `start`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from metaopt.errors import ConfigError

__all__ = ["check_group", "check_layouts", "check_untouched", "flat", "starts"]

Group = Mapping[str, Any]


def flat(group: Group, names: Iterable[str]) -> dict[str, float]:
    """Return a group's hyperparameters by the names that they are learned under: betas apart."""
    betas = dict(zip(("beta1", "beta2"), group["betas"], strict=True)) if "betas" in group else {}
    return {name: float(betas[name] if name in betas else group[name]) for name in names}


def starts(groups: Sequence[Group], mode: str) -> list[dict[str, float]]:
    """Return where each scope begins; a rate of 0 begins as the first that is not, and is 0 times what is learned."""
    rate = next((group["start"]["lr"] for group in groups if group["start"]["lr"]), 0.0)
    begun = [{**group["start"], "lr": group["start"]["lr"] or rate} for group in groups]
    if mode == "per_tensor":
        return [start for start, group in zip(begun, groups, strict=True) for _ in group["params"]]
    return begun if mode == "per_group" else begun[:1]


def check_group(group: Group, names: Iterable[str]) -> None:
    """Raise for what is out of range in a new group.

    Raises:
        ConfigError: a hyperparameter, or a parameter that cannot be stepped.
    """
    if "betas" in group and (not isinstance(group["betas"], tuple | list) or len(group["betas"]) != 2):
        raise ConfigError(f"betas must be two numbers, got {group['betas']!r}")
    for name, value in flat(group, names).items():
        if name in ("momentum", "beta1", "beta2", "alpha") and not 0.0 <= value < 1.0:
            raise ConfigError(f"{name} must be in [0, 1), got {value:g}")
        if not 0.0 <= value < math.inf:
            raise ConfigError(f"{name} must be >= 0 and finite, got {value:g}")
    if group.get("nesterov") and not group["momentum"]:
        raise ConfigError("nesterov=True needs momentum > 0, got momentum=0")
    for param in group["params"]:
        if not param.is_floating_point():
            raise ConfigError(f"parameters must be real floating-point tensors, got {param.dtype}")
        if isinstance(param.data, DTensor):
            raise ConfigError("parameters must be whole tensors, got a DTensor (FSDP2 or tensor parallelism); use DDP")


def check_untouched(groups: Sequence[Group], learned: Iterable[str]) -> None:
    """Raise where somebody has written to a hyperparameter that is learned: the rate apart, nobody would read it.

    Raises:
        ConfigError: with the first that was changed.
    """
    names = [name for name in learned if name != "lr"]
    for number, group in enumerate(groups if names else ()):
        for name, now in flat(group, names).items():
            if now != group["start"][name]:
                change = f"{name} of group {number} was changed from {group['start'][name]:g} to {now:g}"
                raise ConfigError(f"{change}, but it is learned; take {name!r} out of learn to set it by hand")


def check_layouts(groups: Sequence[Group]) -> None:
    """Raise unless all gradients are dense.

    Raises:
        RuntimeError: a sparse gradient, with its parameter.
    """
    for number, group in enumerate(groups):
        for place, param in enumerate(group["params"]):
            if param.grad is not None and param.grad.layout != torch.strided:
                name = repr(group["param_names"][place]) if "param_names" in group else f"{place} of group {number}"
                raise RuntimeError(f"parameter {name} has a sparse gradient, which hypergradient optimizers cannot read")
