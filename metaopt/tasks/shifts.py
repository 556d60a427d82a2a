"""Shifts: a task away from home along one axis, everything else as it was.

Axes of the model and its batch (static) are written into the template, `48x48-silu-b48+width=192`; those that are numbers into the values
of the spec, `shift.loss_scale`. A shifted spec is a spec like any other: JSON, a hash, a task that `metaopt.tasks.build` returns.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from metaopt.errors import TaskError
from metaopt.names import nearest
from metaopt.tasks.families.shape_axes import SHAPE_AXES, axis_values, parted, scaled
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.number_shifts import PREFIX
from metaopt.tasks.registry import get
from metaopt.tasks.task import TaskSpec

__all__ = ["SHIFTS", "shift"]

SHIFTS: Mapping[str, str] = {
    "width": "factor of the width of all layers, rounded to whole units, to multiples of the heads where there are some",
    "depth": "factor of the number of layers, rounded",
    "batch": "factor of the examples in a training batch, rounded",
    "activation": "name of the activation",
    "horizon": "factor of the inner steps of a run, rounded",
    "init_scale": "factor of the initial weights' scale",
    "loss_scale": "factor c of loss and gradient; the normalised loss stays",
    "parameter_scale": "s: weights are in units of s, w = s w', and gradients s times as large",
    "gradient_noise": "standard deviation of normal noise on the gradient, over its root mean square; 0 is home",
    "precision": "float32 (home), or bfloat16 for the forward and the backward pass",
}

_HOME: Mapping[str, float | str] = {"gradient_noise": 0, "precision": "float32"}  # elsewhere factor 1, or the base's own name
_PRECISIONS = ("float32", "bfloat16")
_SMALLEST, _LARGEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
_OF_A_MODEL = (*SHAPE_AXES, "init_scale")


def shift(spec: TaskSpec, axis: str, level: float | int | str) -> TaskSpec:
    """Return the spec of the same task at a level of an axis; the spec itself at home (see `SHIFTS`).

    Shifts on different axes compose, and their order does not matter.

    Args:
        spec: any spec, shifted on other axes or not.
        axis: a key of `SHIFTS`.
        level: what the axis takes: a number > 0 (>= 0 for gradient noise), or a name for activation and precision.

    Raises:
        TaskError: no such axis, not one of this family, shifted on it already, a level that makes no sense, or a shape of meta-training or
            of its validation. A shift of the batch reads the data set.
    """
    if axis not in SHIFTS:
        raise TaskError(f"shift axis {axis!r} is unknown{nearest(axis, SHIFTS)}")
    _check_level(spec, axis, level)
    if axis in _OF_A_MODEL and "model" not in get(spec.family).offers:
        rest = ", ".join(name for name in SHIFTS if name not in _OF_A_MODEL)
        raise TaskError(f"{spec.family} has no axis {axis!r}, asked for at level {level!r}; it has {rest}")
    return _shape_shift(spec, axis, level) if axis in SHAPE_AXES else _number_shift(spec, axis, level)


def _check_level(spec: TaskSpec, axis: str, level: float | int | str) -> None:
    """Raise unless a level has the type and the range of its axis."""
    if axis == "activation":
        return  # its names are the models' to know
    if axis == "precision":
        if level not in _PRECISIONS:
            raise TaskError(f"{spec.family} precision must be one of {', '.join(_PRECISIONS)}, got {level!r}")
        return
    number = level if isinstance(level, int | float) and not isinstance(level, bool) else -1
    home = axis == "gradient_noise" and number == 0
    if not (home or _SMALLEST <= number <= _LARGEST):
        bound = ">= 0" if axis == "gradient_noise" else "> 0"
        raise TaskError(f"{spec.family} {axis} must be a number {bound} in the range of float32, got {level!r}")


def _shape_shift(spec: TaskSpec, axis: str, level: float | int | str) -> TaskSpec:
    family = get(spec.family)
    if not isinstance(family, ShapedFamily):
        raise TaskError(f"{spec.family} has no axis {axis!r}, asked for at level {level!r}: its templates are not shapes")
    shape, (base, taken) = family.shape(spec), parted(spec.family, spec.template)
    if axis in taken:
        raise TaskError(f"{spec.family} {axis} is shifted to {taken[axis]} already, got level {level!r}; shift each axis once")
    value = scaled(spec.family, shape, axis, level)
    if value == axis_values(shape)[axis]:
        return spec
    axes = {**taken, axis: value}
    shifted = replace(spec, template="+".join([base, *(f"{name}={axes[name]}" for name in SHAPE_AXES if name in axes)]))
    family.program_of(shifted)  # refuses shapes of meta-training and batches larger than the data set
    return shifted


def _number_shift(spec: TaskSpec, axis: str, level: float | int | str) -> TaskSpec:
    name = f"{PREFIX}{axis}"
    if name in spec.values:
        raise TaskError(f"{spec.family} {axis} is shifted by {spec.values[name]} already, got level {level!r}; shift each axis once")
    if level == _HOME.get(axis, 1):
        return spec
    if isinstance(level, str):
        return replace(spec, values={**spec.values, name: level})
    factor = float(level)
    shifted = replace(spec, values={**spec.values, name: factor})
    if axis == "init_scale":
        return replace(shifted, values={**shifted.values, axis: float(spec.values[axis]) * factor})
    if axis == "horizon":
        steps = int(spec.horizon * factor + 0.5)
        if steps < 1 or steps == spec.horizon:
            raise TaskError(f"{spec.family} horizon {spec.horizon} times {level} rounds to {steps} steps; choose a larger change")
        return replace(shifted, horizon=steps)
    return shifted
