"""Draws that a family's `sample` is made of: named, seeded, independent of each other's order."""

import math
from dataclasses import dataclass

from metaopt.errors import TaskError
from metaopt.seeds import stable_hash
from metaopt.tasks.task import SPLITS, Family

__all__ = ["Sampler", "check_templates", "split_of"]


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
