"""The registry of task families."""

from metaopt.registry import Registry
from metaopt.tasks.families import FAMILIES
from metaopt.tasks.sampling import check_templates
from metaopt.tasks.task import Family

__all__ = ["REGISTRY", "get", "names", "register"]

REGISTRY: Registry[Family] = Registry("task family", "metaopt.tasks", {family.name: family for family in FAMILIES}, check_templates)


def register(family: Family) -> None:
    """Add a family to the registry after checking that its splits are disjoint.

    An installed package does the same by an entry point of group `metaopt.tasks`.

    Raises:
        ConfigError: the name is taken by another family.
        TaskError: its splits share a template.
    """
    REGISTRY.register(family.name, family)


def names() -> tuple[str, ...]:
    """Return the names of all families, those of installed plug-ins included."""
    return tuple(REGISTRY)


def get(name: str) -> Family:
    """Return a family by name.

    Raises:
        ConfigError: no such family; the message has the nearest name.
    """
    return REGISTRY[name]
