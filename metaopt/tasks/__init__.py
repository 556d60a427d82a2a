"""Streams, models, tasks and the registry of task families."""

from metaopt.registry import Registry
from metaopt.tasks.augmentations import reparametrise
from metaopt.tasks.families import FAMILIES
from metaopt.tasks.sampling import check_templates, split_of
from metaopt.tasks.task import SPLITS, Family, Task, TaskSpec, stack_tasks

__all__ = [
    "SPLITS",
    "Family",
    "Task",
    "TaskSpec",
    "build",
    "check_templates",
    "get",
    "names",
    "register",
    "reparametrise",
    "split_of",
    "stack_tasks",
]

_FAMILIES: Registry[Family] = Registry("task family", "metaopt.tasks", {family.name: family for family in FAMILIES}, check_templates)


def register(family: Family) -> None:
    """Add a family to the registry after checking that its splits are disjoint.

    An installed package does the same by an entry point of group `metaopt.tasks`.

    Raises:
        ConfigError: the name is taken by another family.
        TaskError: its splits share a template.
    """
    _FAMILIES.register(family.name, family)


def names() -> tuple[str, ...]:
    """Return the names of all families, those of installed plug-ins included."""
    return tuple(_FAMILIES)


def get(name: str) -> Family:
    """Return a family by name.

    Raises:
        ConfigError: no such family; the message has the nearest name.
    """
    return _FAMILIES[name]


def build(spec: TaskSpec) -> Task:
    """Return the task of a spec, by the family that it names."""
    return get(spec.family).build(spec)
