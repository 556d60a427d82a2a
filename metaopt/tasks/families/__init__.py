"""Task families: distributions over tasks. `FAMILIES` holds the bundled ones, a line for each."""

from metaopt.tasks.families.images import DIGITS_CONV, DIGITS_MLP
from metaopt.tasks.families.quadratic import QUADRATIC
from metaopt.tasks.task import Family

__all__ = ["FAMILIES"]

FAMILIES: tuple[Family, ...] = (
    QUADRATIC,
    DIGITS_MLP,
    DIGITS_CONV,
)
