"""Search spaces: which hyperparameters trials try, as a fixed list of which every budget takes the beginning.

The first trial is the documented default. The others are a Halton sequence, one prime a hyperparameter, the rate having base 2: its first
2^n - 1 points are evenly spaced, so that small budgets cover the rates. Nothing is random, and nothing looked at an evaluation suite.

Source: Halton, 1960, "On the efficiency of certain quasi-random sequences of points"; Dahl et al., 2023, "Benchmarking neural network
training algorithms", for tuning by quasi-random search.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Axis", "Trial", "halton", "trials_of"]

_PRIMES = (2, 3, 5, 7, 11)


@dataclass(frozen=True, order=True)
class Trial:
    """One choice of hyperparameters.

    Attributes:
        values: (name, value) pairs, sorted by name, `lr` among them.
    """

    values: tuple[tuple[str, float], ...]

    @staticmethod
    def of(values: Mapping[str, float]) -> "Trial":
        """Return the trial of these hyperparameters."""
        return Trial(tuple(sorted((name, float(value)) for name, value in values.items())))

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The values by name."""
        return dict(self.values)

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.hyperparameters["lr"]

    def __str__(self) -> str:
        return " ".join(f"{name}={value:g}" for name, value in self.values)


@dataclass(frozen=True)
class Axis:
    """The range of one hyperparameter.

    Attributes:
        name: of the hyperparameter.
        low, high: closed range.
        scale: `log` spaces its logarithm evenly, `log_one_minus` that of 1 - value (for decays), `linear` the value.
    """

    name: str
    low: float
    high: float
    scale: Literal["log", "log_one_minus", "linear"] = "log"

    def at(self, u: float) -> float:
        """Return the value at u in [0, 1], increasing, to four digits (of 1 - value for `log_one_minus`)."""
        if self.scale == "linear":
            return _rounded(self.low + u * (self.high - self.low))
        if self.scale == "log":
            return _rounded(self.low * (self.high / self.low) ** u)
        return round(1.0 - _rounded((1.0 - self.low) * ((1.0 - self.high) / (1.0 - self.low)) ** u), 12)


def halton(index: int, base: int) -> float:
    """Return the `index`-th number (from 1) of the van der Corput sequence of a base, in (0, 1): its digits mirrored at the point."""
    value, place = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        place /= base
        value += digit * place
    return value


def trials_of(default: Mapping[str, float], axes: Sequence[Axis], count: int) -> tuple[Trial, ...]:
    """Return the first `count` trials of a space: the default, then the Halton sequence over the axes, at most five."""
    if len(axes) > len(_PRIMES):
        raise ValueError(f"a search space has at most {len(_PRIMES)} axes, got {len(axes)}")
    points = [{axis.name: axis.at(halton(i, base)) for axis, base in zip(axes, _PRIMES, strict=False)} for i in range(1, count)]
    return tuple(Trial.of({**default, **point}) for point in ({}, *points))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") if math.isfinite(value) else value
