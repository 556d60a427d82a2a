"""Streams, models, tasks and the registry of task families."""

from importlib.metadata import entry_points

from metaopt.errors import ConfigError
from metaopt.names import nearest
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

_FAMILIES: dict[str, Family] = {family.name: family for family in FAMILIES}


def register(family: Family) -> None:
    """Add a family to the registry after checking that its splits are disjoint.

    Raises:
        ConfigError: the name is taken by another family.
        TaskError: its splits share a template.
    """
    if _FAMILIES.get(family.name, family) is not family:
        raise ConfigError(f"task family {family.name!r} is registered already")
    check_templates(family)  # first: a refused family must not stay behind
    _FAMILIES[family.name] = family


def _load_entry_points() -> None:
    for entry in entry_points(group="metaopt.tasks"):
        if entry.name not in _FAMILIES:
            register(entry.load())


def names() -> tuple[str, ...]:
    """Return the names of all families, those of installed plug-ins included."""
    _load_entry_points()
    return tuple(_FAMILIES)


def get(name: str) -> Family:
    """Return a family by name.

    Raises:
        ConfigError: no such family; the message has the nearest name.
    """
    if name not in names():
        raise ConfigError(f"task family {name!r} is unknown{nearest(name, _FAMILIES)}")
    return _FAMILIES[name]


def build(spec: TaskSpec) -> Task:
    """Return the task of a spec, by the family that it names."""
    return get(spec.family).build(spec)
