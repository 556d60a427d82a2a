"""Streams, models, tasks and the registry of task families."""

from collections.abc import Mapping

from metaopt.tasks.augmentations import reparametrise
from metaopt.tasks.data import Source
from metaopt.tasks.data import get as get_data
from metaopt.tasks.families.images import classification
from metaopt.tasks.families.tabular import tables
from metaopt.tasks.number_shifts import apply_shifts
from metaopt.tasks.registry import get, names, register
from metaopt.tasks.sampling import Axis, Shape, check_templates, split_of
from metaopt.tasks.shifts import SHIFTS, shift
from metaopt.tasks.task import SPLITS, Family, Task, TaskSpec, stack_tasks

__all__ = [
    "SHIFTS",
    "SPLITS",
    "Family",
    "Task",
    "TaskSpec",
    "build",
    "check_templates",
    "get",
    "image_family",
    "names",
    "register",
    "reparametrise",
    "shift",
    "split_of",
    "stack_tasks",
    "tabular_family",
]


def build(spec: TaskSpec) -> Task:
    """Return the task of a spec, by the family that it names, after the shifts that it holds."""
    return apply_shifts(get(spec.family).build(spec), spec.values)


def image_family(
    name: str,
    data: Source | str,
    architecture: str = "mlp",
    *,
    grid: Mapping[str, Mapping[str, Shape]] | None = None,
    space: Mapping[str, Axis] | None = None,
    counts: Mapping[str, int] | None = None,
    init_scale: tuple[float, float] = (0.7, 1.4),
) -> Family:
    """Return a registered family of networks that classify the examples of a data set.

    `image_family("leaves_conv", data.register("leaves", lambda: data.from_image_folder("leaves", side=16)), "conv")` is all that a folder
    of images needs.

    Args:
        name: what configs call it, `<data>_<architecture>` by custom.
        data: a source, or the name of a registered one.
        architecture: mlp, conv, resnet, vit or logistic.
        grid: split -> {template: shape}, when its templates are not to be drawn.
        space: axes of the architecture to draw from instead, by name (and `side`, to which images are brought).
        counts: split -> number of templates to draw.
        init_scale: closed range of the log-uniform factor of the initial weights' standard deviation.

    Raises:
        ConfigError: the name is taken, no such data set, or the package that brings it is not installed.
        TaskError: architecture, axes and data set do not fit each other.
    """
    source = get_data(data) if isinstance(data, str) else data
    family = classification(name, source, architecture, grid, space, counts, init_scale)
    register(family)
    return family


def tabular_family(
    name: str,
    data: Source | str,
    *,
    grid: Mapping[str, Mapping[str, Shape]] | None = None,
    space: Mapping[str, Axis] | None = None,
    counts: Mapping[str, int] | None = None,
    init_scale: tuple[float, float] = (0.5, 2.0),
) -> Family:
    """Return a registered family of fully connected networks on a table, which predict its labels or its amounts.

    `tabular_family("houses", data.register("houses", lambda: data.from_csv("houses.csv", label="price", amounts=True)))` is all that a CSV
    file needs.

    Args:
        name: what configs call it.
        data: a source, or the name of a registered one.
        grid: split -> {template: shape}, when its templates are not to be drawn.
        space: axes to draw from instead, by name: width, depth, activation, initialiser, norm, batch.
        counts: split -> number of templates to draw.
        init_scale: closed range of the log-uniform factor of the initial weights' standard deviation.

    Raises:
        ConfigError: the name is taken, or no such data set.
        TaskError: the data set is no table, or an axis is unknown.
    """
    source = get_data(data) if isinstance(data, str) else data
    family = tables(name, (source,), grid, space, counts, init_scale)
    register(family)
    return family
