"""Draws that families are made of: of one task's values, named and seeded, and of the static shapes that are its templates."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from metaopt.errors import TaskError
from metaopt.seeds import stable_hash
from metaopt.tasks.task import SPLITS, Family

__all__ = ["Axis", "Choices", "Integers", "LogIntegers", "Sampler", "Shape", "check_templates", "draw_templates", "split_of"]

Shape = dict[str, int | float | str]  # one value for each axis of a space

_SHARES = (("meta_train", 0.6), ("meta_valid", 0.8), ("meta_test", 1.0))  # cumulative shares of a space's shapes
_DRAWS = 10_000  # a space that holds enough shapes gives them up long before


@dataclass(frozen=True)
class Sampler:
    """Draws of one task; a draw depends on (family, template, seed, its name) and on nothing else."""

    family: str
    template: str
    seed: int

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high)."""
        fraction = (stable_hash("task", self.family, self.template, self.seed, name) >> 10) * 2.0**-53
        return low + fraction * (high - low)

    def log_uniform(self, name: str, low: float, high: float) -> float:
        """Return a number in [low, high), uniform in its logarithm; 0 < low <= high."""
        return float(f"{math.exp(self.uniform(name, math.log(low), math.log(high))):.12g}")  # the last bits differ between C libraries

    def log_integer(self, name: str, low: int, high: int) -> int:
        """Return an integer in the closed range [low, high], uniform in its logarithm up to rounding down."""
        return min(high, int(self.log_uniform(name, low, high + 1)))


def split_of(family: Family, template: str) -> str:
    """Return the split that a template belongs to.

    Raises:
        TaskError: the family has no such template.
    """
    for split in SPLITS:
        if template in family.templates(split):
            return split
    known = ", ".join(t for split in SPLITS for t in family.templates(split))
    raise TaskError(f"family {family.name} has no template {template!r}; it has {known}")


def check_templates(family: Family) -> None:
    """Raise unless the splits of a family are disjoint, by template name and by the program that each template builds.

    Raises:
        TaskError: two splits share a template, or a static shape under two names.
    """
    owner: dict[object, str] = {}
    for split in SPLITS:
        for template in family.templates(split):
            program = family.build(family.sample(template, 0, (1, 1))).program
            for identity in (template, program):
                if owner.setdefault(identity, split) != split:
                    raise TaskError(
                        f"family {family.name}: {identity} is in {owner[identity]} and in {split}; splits must share no template"
                    )


@dataclass(frozen=True)
class LogIntegers:
    """An axis of multiples of `multiple` in the closed range [low, high], uniform in the logarithm up to rounding."""

    low: int
    high: int
    multiple: int = 1

    def draw(self, sampler: Sampler, axis: str) -> int:
        """Return the value of one shape."""
        return self.multiple * sampler.log_integer(axis, -(-self.low // self.multiple), self.high // self.multiple)


@dataclass(frozen=True)
class Integers:
    """An axis of integers in the closed range [low, high], uniform."""

    low: int
    high: int

    def draw(self, sampler: Sampler, axis: str) -> int:
        """Return the value of one shape."""
        return int(sampler.uniform(axis, self.low, self.high + 1))


@dataclass(frozen=True)
class Choices:
    """An axis of listed values, uniform; a value that is listed twice comes twice as often."""

    values: tuple[int | float | str, ...]

    def draw(self, sampler: Sampler, axis: str) -> int | float | str:
        """Return the value of one shape."""
        return self.values[int(sampler.uniform(axis, 0, len(self.values)))]


Axis = LogIntegers | Integers | Choices


def draw_templates(
    family: str,
    space: Mapping[str, Axis],
    counts: Mapping[str, int],
    canonical: Callable[[Shape], Shape | None] = dict,
) -> dict[str, dict[str, Shape]]:
    """Return split -> {template name: shape}: distinct static shapes drawn from a space, a pure function of the arguments.

    A hash of the shape itself decides its split (60 % meta_train, 20 % each of the others), so that no shape can be in two. Asking for more
    templates of one split changes no other split and keeps the ones that were there.

    Args:
        family: the family's name; each family draws shapes of its own.
        space: axis -> what its values are. Names of templates spell them out, as in `width32-depth2-relu-batch64` (words stand
            alone, "none" is left out).
        counts: split -> number of templates, 0 if it is missing.
        canonical: maps shapes that build the same program to one of them (a net without hidden layers has no width), and those that are
            not wanted (too slow, say) to None.

    Raises:
        TaskError: the space is too small to hold as many.
    """
    grid: dict[str, dict[str, Shape]] = {split: {} for split in SPLITS}
    for i in range(_DRAWS):
        if all(len(grid[split]) >= counts.get(split, 0) for split in SPLITS):
            return grid
        sampler = Sampler(family, "template", i)
        shape = canonical({axis: kind.draw(sampler, axis) for axis, kind in space.items()})
        if shape is None:
            continue
        name = "-".join(value if isinstance(value, str) else f"{axis}{value}" for axis, value in shape.items() if value != "none")
        share = stable_hash("split", family, name) * 2.0**-63
        split = next(split for split, below in _SHARES if share < below)
        if len(grid[split]) < counts.get(split, 0):
            grid[split][name] = shape
    found = ", ".join(f"{len(grid[split])} {split}" for split in SPLITS)
    raise TaskError(f"family {family}: {dict(counts)} templates do not fit its space, which gave {found}; widen an axis or ask for fewer")
