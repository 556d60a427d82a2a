"""Parameter groups of `UnitlessAdam`: what is in range, which parameters take a step, and the numbers that it takes."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.policies.unitless_adam import EPS_MODES, Hyperparameters, number_dtype
from metaopt.names import nearest

__all__ = ["as_hyperparameters", "check_group", "find_members", "read_numbers"]

# Closed or open ends of the ranges of `metaopt.learners.policies.unitless_adam`, and how to say them.
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "lr": (lambda x: 0.0 <= x < math.inf, ">= 0 and finite"),
    "weight_decay": (lambda x: 0.0 <= x < math.inf, ">= 0 and finite"),
    "eps": (lambda x: 0.0 < x < math.inf, "> 0 and finite"),
    "clip_ratio": (lambda x: x > 0.0, "> 0 (1 and above never clip)"),
    "clip_decay": (lambda x: 0.0 <= x <= 1.0, "in [0, 1]"),
    "trust_decay": (lambda x: 0.0 < x <= 1.0, "in (0, 1]"),
}


def check_group(group: dict[str, Any]) -> None:
    """Refuse a group that cannot be stepped.

    Raises:
        ConfigError: a hyperparameter out of range, or a parameter that is no real floating-point tensor.
    """
    for name, (inside, range_) in _RANGES.items():
        value = group[name]
        if not isinstance(value, Tensor) and not inside(value):
            raise ConfigError(f"{name} must be {range_}, got {value}")
    betas = group["betas"]
    if len(betas) != 2 or not all(isinstance(beta, Tensor) or 0.0 <= beta < 1.0 for beta in betas):
        raise ConfigError(f"betas must be two numbers in [0, 1), got {betas}")
    if group["eps_mode"] not in EPS_MODES:
        raise ConfigError(f"eps_mode {group['eps_mode']!r} is unknown{nearest(str(group['eps_mode']), EPS_MODES)}")
    for param in group["params"]:
        if not param.is_floating_point():
            raise ConfigError(f"parameters must be real floating-point tensors, got {param.dtype}")


def find_members(group: dict[str, Any], number: int) -> list[Tensor]:
    """Return the parameters that take this step, those of one device and dtype side by side.

    Raises:
        RuntimeError: a sparse gradient; `number` says of which group.
    """
    names = group.get("param_names")
    members = []
    for place, param in enumerate(group["params"]):
        if param.grad is None or param.numel() == 0:
            continue
        if param.grad.layout != torch.strided:
            name = repr(names[place]) if names else f"{place} of group {number}"
            raise RuntimeError(f"parameter {name} has a sparse gradient, which UnitlessAdam cannot read; use a dense one")
        members.append(param)
    return sorted(members, key=lambda param: (str(param.device), str(param.dtype)))  # stable


def read_numbers(group: dict[str, Any]) -> Tensor:
    """Return the hyperparameters of a group on the host, [8] float64; a rate that is a tensor on an accelerator is waited for."""
    beta1, beta2 = group["betas"]
    values = {**group, "epsilon": group["eps"], "one_minus_beta1": 1.0 - float(beta1), "one_minus_beta2": 1.0 - float(beta2)}
    return torch.tensor([float(values[name]) for name in Hyperparameters._fields], dtype=torch.float64)


def as_hyperparameters(numbers: Tensor, device: torch.device) -> Hyperparameters:
    """Return them as 0-d tensors on a device."""
    return Hyperparameters(*numbers.to(number_dtype(device)).to(device).unbind())
