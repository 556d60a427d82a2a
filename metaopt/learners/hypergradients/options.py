"""What users write about a tower, checked and built: parts, what is learned, links, bounds.

A base is one of `BASES`; its hyperparameters are sizes (a rate, a decay, an epsilon: > 0 to be learned under `log`) or fractions (a
momentum, a beta: between 0 and 1).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.hypergradients.links import LINKS, Link
from metaopt.learners.hypergradients.towers import UPDATES, Learned, Tower
from metaopt.learners.update_rules.classic import CLASSIC, ClassicRule, Hypers, Size
from metaopt.learners.update_rules.lion import Lion
from metaopt.learners.update_rules.rule import State
from metaopt.names import nearest

__all__ = ["BASES", "PARTS", "Bounds", "Hyper", "Part", "build_tower", "default_rate"]

Part = str | Mapping[str, Any]
Hyper = Part | Sequence[Part]
Bounds = tuple[float, float]


def _sign(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    return torch.sign(grad), {}


@dataclass(frozen=True)
class Sign(ClassicRule):
    """A step of one size against the sign of the derivative."""

    name: ClassVar[str] = "sign"
    lr: Size = 1e-2
    _formula = staticmethod(_sign)


# A derivative in a rate may have any size: an epsilon that is large beside it would be a second rate.
PARTS: dict[str, ClassicRule] = {
    "sgd": CLASSIC["sgd"](),
    "momentum": CLASSIC["momentum"](),
    "adam": CLASSIC["adam"](eps=1e-30),  # type: ignore[call-arg]
    "rmsprop": CLASSIC["rmsprop"](eps=1e-30),  # type: ignore[call-arg]
    "sign": Sign(),
}

BASES: dict[str, type[ClassicRule]] = {name: CLASSIC[name] for name in ("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop")} | {
    "lion": Lion
}

_FRACTIONS = frozenset({"momentum", "beta1", "beta2", "alpha"})
_UNSMOOTH = {"lion": frozenset({"beta1", "beta2"})}  # behind a sign
_SCALED = frozenset({"sgd", "momentum", "nesterov"})  # bases whose step has the gradient's own size

# Rates of a part that is given by name, by what they are a rate of: a value, or its relative change; and of a part whose direction has the
# derivative's size, or size 1. Found on the bundled digits (docs/hypergradients.md); a base whose steps have size 1 meets derivatives that
# are larger, and values that are smaller, by orders of magnitude.
_RATES = {
    ("additive", True): {"scaled": 1e-2, "unscaled": 1e-5},
    ("additive", False): {"scaled": 1e-3, "unscaled": 1e-5},
    ("multiplicative", True): {"scaled": 0.1, "unscaled": 1e-2},
    ("multiplicative", False): {"scaled": 0.03, "unscaled": 0.03},
    ("cosine", True): {"scaled": 0.05, "unscaled": 0.05},
    ("cosine", False): {"scaled": 0.03, "unscaled": 0.03},
}
_WIDEST = {"lr": (1e-10, 1e2), "weight_decay": (1e-12, 1.0), "eps": (1e-20, 1.0)}
_FRACTION = (1e-4, 1.0 - 1e-6)


def default_rate(base: str, update: str, part: str = "sgd") -> float:
    """Return the rate of a part that is given by name alone."""
    return _RATES[update, part in ("sgd", "momentum")]["scaled" if base in _SCALED else "unscaled"]


def build_tower(
    base: str,
    values: Mapping[str, float],
    hyper: Hyper = "sgd",
    learn: Sequence[str] = ("lr",),
    link: str | Mapping[str, str] = "log",
    bounds: Bounds | Mapping[str, Bounds] | None = None,
    update: str = "additive",
) -> Tower:
    """Return the tower that learns `learn` of a base optimizer.

    Args:
        base: a name in `BASES`.
        values: where its hyperparameters begin.
        hyper: the optimizers of the tower, lowest first: names in `PARTS`, or mappings with `name`, `lr` and what else the part has.
        learn: names of hyperparameters of the base, at least one.
        link: a name in `LINKS`, for everything (`log` means `logit` for a fraction), or one for each learned hyperparameter.
        bounds: [low, high] of the values, for everything or by name; None for wide ones, which `identity` and `square` have only where the
            link does.
        update: how values move (`towers`).

    Raises:
        ConfigError: an unknown name, nothing to learn, a value outside its link or its bounds, or one that has no derivative.
    """
    if update not in UPDATES:
        raise ConfigError(f"update {update!r} is unknown{nearest(update, UPDATES)}")
    names = [learn] if isinstance(learn, str) else list(learn)
    if not names:
        raise ConfigError('learn names nothing: give at least one hyperparameter, as in learn=("lr",)')
    if len(set(names)) < len(names):
        raise ConfigError(f"learn names {next(name for name in names if names.count(name) > 1)!r} twice")
    for name in names:
        if name not in values:
            raise ConfigError(f"learn names {name!r}, which {base} does not have{nearest(name, values)}")
        if name in _UNSMOOTH.get(base, ()):
            raise ConfigError(f"learn names {name!r}, but {base} takes a sign, whose derivative is 0; learn lr or weight_decay")
    for what, given in (("link", link), ("bounds", bounds)):
        if isinstance(given, Mapping) and (unknown := sorted(set(given) - set(names))):
            raise ConfigError(f"{what} names {unknown[0]!r}, which is not learned{nearest(unknown[0], names)}")
    learned = tuple(_learned(name, values[name], link, bounds) for name in names)
    of_levels = LINKS["identity" if link == "identity" else "log"]
    return Tower(learned, _parts(base, hyper, update), update, of_levels)


def _learned(name: str, value: float, link: str | Mapping[str, str], bounds: Bounds | Mapping[str, Bounds] | None) -> Learned:
    wanted = link if isinstance(link, str) else link.get(name, "log")
    if wanted not in LINKS:
        raise ConfigError(f"link {wanted!r} of {name} is unknown{nearest(wanted, LINKS)}")
    fraction = name in _FRACTIONS
    chosen = LINKS["logit" if fraction and wanted == "log" else wanted]
    given = bounds.get(name) if isinstance(bounds, Mapping) else bounds
    low, high = _bounds(name, value, chosen, given)
    if not math.isfinite(float(chosen.to(torch.tensor(value, dtype=torch.float64)))):
        way = "start above 0" if value == 0 else f"start between {chosen.low:g} and {chosen.high:g}"
        raise ConfigError(f"{name}={value:g} has no place under link {chosen.name}; {way}, or give link={{{name!r}: 'identity'}}")
    if not low <= value <= high:
        raise ConfigError(f"{name}={value:g} lies outside its bounds [{low:g}, {high:g}]; move one of them")
    return Learned(name, chosen, low, high)


def _bounds(name: str, value: float, link: Link, given: Bounds | None) -> Bounds:
    fraction = name in _FRACTIONS
    # A beta of 1 would divide by 0, and only a published rate may be negative.
    inside = (max(link.low, 0.0), max(_FRACTION[1], value)) if fraction else (link.low if name == "lr" else max(link.low, 0.0), link.high)
    if given is None:
        if link.name not in ("log", "logit"):
            return inside
        low, high = _FRACTION if fraction else _WIDEST[name]
        return min(low, value), max(high, value)  # a start beyond them is the user's own wish
    try:
        low, high = (float(end) for end in given)
    except (TypeError, ValueError):
        raise ConfigError(f"bounds of {name} must be (low, high), got {given!r}") from None
    if not inside[0] <= low < high <= inside[1]:
        raise ConfigError(
            f"bounds of {name} must be low < high within [{inside[0]:.8g}, {inside[1]:.8g}] under link {link.name}, got {given!r}"
        )
    return low, high


def _parts(base: str, hyper: Hyper, update: str) -> tuple[ClassicRule, ...]:
    levels = [hyper] if isinstance(hyper, str | Mapping) else list(hyper)
    if not levels:
        raise ConfigError("hyper is empty: a tower has at least one optimizer")
    return tuple(_part(base, one, update) for one in levels)


def _part(base: str, wanted: Part, update: str) -> ClassicRule:
    options = {"name": wanted} if isinstance(wanted, str) else dict(wanted)
    name = options.pop("name", None)
    if name not in PARTS:
        raise ConfigError(f"hyper names {name!r}, which is no part of a tower{nearest(str(name), PARTS)}")
    part = PARTS[name]
    if unknown := sorted(set(options) - set(part.hyperparameters)):
        raise ConfigError(f"hyper part {name} has no option {unknown[0]!r}{nearest(unknown[0], part.hyperparameters)}")
    options = {"lr": default_rate(base, update, name), **options}
    for key, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise ConfigError(f"hyper part {name}: {key} must be a number >= 0, got {value!r}")
    changes: dict[str, Any] = {key: float(value) for key, value in options.items()}
    return replace(part, **changes)
