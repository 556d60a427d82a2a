"""Shapes beside those of a grid: a template's name with one or more axes set, as in `48x48-silu-b48+width=192+batch=96`.

An axis has one name for all families, whatever a family calls that part of its shapes.
"""

from collections.abc import Mapping

from metaopt.errors import TaskError
from metaopt.names import nearest
from metaopt.tasks.models.parts import ACTIVATIONS
from metaopt.tasks.sampling import Shape

__all__ = ["SHAPE_AXES", "axis_values", "moved", "parted", "scaled"]

# Axis -> what shapes call it: recurrent nets have hidden units, residual ones blocks, transformers layers.
SHAPE_AXES: Mapping[str, tuple[str, ...]] = {
    "width": ("width", "hidden"),
    "depth": ("depth", "blocks", "layers"),
    "batch": ("batch",),
    "activation": ("activation",),
}


def axis_values(shape: Shape) -> dict[str, int | float | str]:
    """Return axis -> value of a shape; a net without hidden layers has neither width nor activation, and its depth is 0."""
    found = {axis: shape[name] for axis in SHAPE_AXES if (name := _name(shape, axis)) is not None}
    return {axis: value for axis, value in found.items() if axis not in ("width", "activation") or shape.get("width") != 0}


def parted(family: str, template: str) -> tuple[str, dict[str, int | str]]:
    """Return the name of the template in the grid, and axis -> value of what follows it, in that order.

    Raises:
        TaskError: an unknown axis, one twice, or a value that is no whole number (no activation, for that axis).
    """
    base, *parts = template.split("+")
    found: dict[str, int | str] = {}
    for part in parts:
        axis, _, text = part.partition("=")
        if axis not in SHAPE_AXES:
            raise TaskError(f"{family} template {template!r}: axis {axis!r} is unknown{nearest(axis, SHAPE_AXES)}")
        if axis in found:
            raise TaskError(f"{family} template {template!r}: axis {axis} is set twice; set each axis once")
        if axis == "activation":
            found[axis] = _activation(family, text)
        elif text.isascii() and text.isdigit() and int(text) >= 1 and text == str(int(text)):
            found[axis] = int(text)
        else:
            raise TaskError(f"{family} template {template!r}: {axis} must be a whole number >= 1, got {text!r}")
    return base, found


def moved(family: str, shape: Shape, axis: str, value: int | str) -> Shape:
    """Return a shape with one axis at another value.

    Raises:
        TaskError: the shape has no such axis, or its heads do not divide the width.
    """
    known = axis_values(shape)
    name = _name(shape, axis)
    if axis not in known or name is None:
        raise TaskError(f"{family} has no axis {axis!r}, to be set to {value!r}; this shape has {', '.join(known) or 'none'}")
    if isinstance(value, int) and value % _multiple(shape, axis):
        raise TaskError(f"{family} {axis} must be a multiple of its {_multiple(shape, axis)} heads, got {value}")
    return {**shape, name: value}


def scaled(family: str, shape: Shape, axis: str, level: float | int | str) -> int | str:
    """Return the value of an axis at a level: a name for `activation`, else a factor of the shape's own value, rounded to what it allows.

    Raises:
        TaskError: no such axis or activation, a factor that is no number > 0, or one that rounds to nothing or to the shape's own value.
    """
    known = axis_values(shape)
    if axis not in known:
        raise TaskError(f"{family} has no axis {axis!r}, asked for at level {level!r}; this shape has {', '.join(known) or 'none'}")
    if axis == "activation":
        return _activation(family, str(level))
    own, multiple = int(known[axis]), _multiple(shape, axis)
    value = multiple * int(own * float(level) / multiple + 0.5)
    if value < 1 or (value == own and level != 1):
        raise TaskError(f"{family} {axis} {own} times {level} rounds to {value}, in multiples of {multiple}; choose a larger change")
    return value


def _name(shape: Shape, axis: str) -> str | None:
    return next((name for name in SHAPE_AXES[axis] if name in shape), None)


def _multiple(shape: Shape, axis: str) -> int:
    return int(shape.get("heads", 1)) if axis == "width" else 1


def _activation(family: str, name: str) -> str:
    if name not in ACTIVATIONS:
        raise TaskError(f"{family} activation {name!r} is unknown{nearest(name, ACTIVATIONS)}")
    return name
