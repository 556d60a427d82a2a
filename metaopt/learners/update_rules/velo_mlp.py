"""The small network of VeLO and Celo, 30-4-4-3 for every weight, and the bank of them that VeLO mixes for each tensor.

Legend: n weights of one tensor, K tensors, J networks of the bank, H hidden units.

Source: Metz et al., 2022, "VeLO: training versatile learned optimizers by scaling up", section 3 and appendix B, and its code release.
"""

import itertools
import math

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.learners.update_rules.features import network, random_network, signal_path
from metaopt.learners.update_rules.rule import Theta
from metaopt.learners.update_rules.velo_features import FEATURES, mean_square

__all__ = ["init_bank", "init_network", "learned_step", "mixed_networks", "with_prefix", "without_prefix"]

ADAM_FEATURE = FEATURES.index("normalised momentum 0.9")
_OUTPUTS = 3  # direction, magnitude, and one that nothing reads
_EXP_MULT = 1e-3
_EPS_NORM = 1e-5
_EPS_SCALE = 1e-9
_PARTS = ("w0", "b0", "w1", "b1", "w2", "b2")


def with_prefix(prefix: str, theta: Theta) -> Theta:
    """Return theta with every name preceded by the prefix."""
    return {f"{prefix}{name}": value for name, value in theta.items()}


def without_prefix(prefix: str, theta: Theta) -> Theta:
    """Return the entries whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in theta.items() if name.startswith(prefix)}


def init_network(start: str, hidden: int, seed: int) -> Theta:
    """Return `w0, b0, ... b2` of one network; from "adam" its direction is momentum over the root second moment, from "random" anything."""
    theta = random_network((len(FEATURES), hidden, hidden, _OUTPUTS), seed)
    return signal_path(theta, ADAM_FEATURE) if start == "adam" else theta


def init_bank(start: str, hidden: int, mixture: int, seed: int) -> Theta:
    """Return J networks, `w0` [J, H, 30] and so on, drawn independently; from "adam" their mean is that network, whatever each one is."""
    sizes = (len(FEATURES), hidden, hidden, _OUTPUTS)
    bank: Theta = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        draw = seeds.normal(seeds.key("rule", seed, "bank", i), (mixture, fan_out, fan_in)).clamp(-2.0, 2.0)
        bank[f"w{i}"] = draw / math.sqrt(fan_in)
        bank[f"b{i}"] = torch.zeros(mixture, fan_out)
    if start == "adam":
        center = init_network("adam", hidden, seed)
        bank = {name: value - value.mean(0) + center[name] for name, value in bank.items()}
    return bank


def mixed_networks(bank: Theta, coefficients: Tensor, factor: float) -> list[Theta]:
    """Return a network for each tensor: factor * mean over j of coefficients[k, j] * network j, weights and biases alike.

    Args:
        bank: `w0` [J, ...] and so on.
        coefficients: [K, J], of any sign.
        factor: of the mean.
    """
    count = coefficients.shape[1]
    flat = torch.cat([bank[name].reshape(count, -1) for name in _PARTS], dim=1)
    mixed = (factor / count) * (coefficients @ flat)
    pieces = torch.split(mixed, [bank[name][0].numel() for name in _PARTS], dim=1)
    shaped = [piece.reshape(-1, *bank[name].shape[1:]) for name, piece in zip(_PARTS, pieces, strict=True)]
    return [dict(zip(_PARTS, parts, strict=True)) for parts in zip(*(value.unbind(0) for value in shaped), strict=True)]


def learned_step(theta: Theta, param: Tensor, features: Tensor, step_mult: float, parameter_scale: bool) -> Tensor:
    """Return step_mult * direction * exp(1e-3 magnitude) [*shape], in units of the tensor's RMS if `parameter_scale`.

    Args:
        theta: `w0` [H, 30], `b0` [H], and so on.
        param: the tensor, not empty.
        features: [30, n]; each is divided by its RMS over the tensor first (epsilon 1e-5 beside the mean square).
        step_mult: size of a unit direction.
        parameter_scale: whether steps are relative to sqrt(mean square + 1e-9) of the tensor.
    """
    heard = {**theta, "w2": theta["w2"][:2], "b2": theta["b2"][:2]}
    direction, magnitude = network(heard, features, torch.rsqrt(_EPS_NORM + (features * features).mean(1)))
    step: Tensor = step_mult * direction * torch.exp(_EXP_MULT * magnitude)
    return (step * torch.sqrt(mean_square(param) + _EPS_SCALE) if parameter_scale else step).reshape(param.shape)
