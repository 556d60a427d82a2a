"""Classification of a data set's examples by one class of networks: the families `<data>_<architecture>`.

Everything about the network and the batch size is static, hence a template; initial scale and horizon vary inside it.
"""

import math
from collections.abc import Mapping

from metaopt.errors import TaskError
from metaopt.names import nearest
from metaopt.tasks.data.data_set import Source
from metaopt.tasks.families.architectures import ARCHITECTURES, Architecture, example_shape, number
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.families.supervised import Supervised
from metaopt.tasks.floors import floor
from metaopt.tasks.sampling import Axis, Choices, Shape, draw_templates
from metaopt.tasks.streams.arrays import Examples

__all__ = ["classification"]

_COUNTS = {"meta_train": 12, "meta_valid": 4, "meta_test": 4}
_INIT_SCALE = (0.5**0.5, 2.0**0.5)  # of the standard deviation: half to twice the usual variance, as in VeLO
_CAP = 10.0  # deep networks at twice the usual weights begin at several times the loss of a guess
_LARGEST_SIDE = 16  # larger images are made smaller, unless a space says otherwise
_SIDES = Choices((8, 12))


def classification(
    name: str,
    source: Source,
    architecture: str,
    grid: Mapping[str, Mapping[str, Shape]] | None = None,
    space: Mapping[str, Axis] | None = None,
    counts: Mapping[str, int] | None = None,
    init_scale: tuple[float, float] = _INIT_SCALE,
    cap: float = _CAP,
) -> ShapedFamily[Supervised]:
    """Return the family of one architecture's networks on one data set. Nothing is read until a task is built.

    Args:
        name: of the family.
        source: the data set.
        architecture: a key of `ARCHITECTURES`.
        grid: split -> {template: shape}; default: drawn.
        space: axes that replace those of the architecture, or `side`, for images; default for images above 16 pixels: 8 or 12.
        counts: split -> number of templates to draw; default: 12, 4 and 4.
        init_scale: closed range of the log-uniform factor of the initial weights' standard deviation.
        cap: normalised loss at which a run has diverged.

    Raises:
        TaskError: no such architecture or axis, an architecture that does not take such examples, or a space without enough shapes.
    """
    if architecture not in ARCHITECTURES:
        raise TaskError(f"family {name}: architecture {architecture!r} is unknown{nearest(architecture, ARCHITECTURES)}")
    kind = ARCHITECTURES[architecture]
    dimensions = len(source.shape) - 1
    if kind.dimensions and dimensions not in kind.dimensions:
        raise TaskError(
            f"family {name}: architecture {architecture!r} takes examples of {' or '.join(map(str, kind.dimensions))} axes beside the"
            f" channels, but data set {source.name!r} has the shape {source.shape}; choose mlp or logistic"
        )

    def program(shape: Shape) -> Supervised:
        extent = example_shape(shape, source.shape)
        stream = Examples(source, extent, number(shape, "batch"))
        return Supervised(stream, kind.model(shape, extent, source.classes), cap=cap)

    def constants(_: Supervised) -> Mapping[str, float]:
        return {"reference": math.log(source.classes), "floor": floor(name)}  # a uniform guess, and what a tuned optimizer reaches

    if grid is None:
        axes = _axes(name, kind, source, space or {})
        grid = draw_templates(name, axes, counts or _COUNTS, lambda shape: kind.wanted(shape, source.shape, source.classes))
    return ShapedFamily(name, grid, program, constants, init_scale)


def _axes(name: str, kind: Architecture, source: Source, space: Mapping[str, Axis]) -> dict[str, Axis]:
    images = len(source.shape) == 3
    known = [*kind.space, *(["side"] if images else [])]
    for axis in space:
        if axis not in known:
            raise TaskError(f"family {name}: axis {axis!r} is unknown{nearest(axis, known)}")
    side = {"side": _SIDES} if images and max(source.shape[1:]) > _LARGEST_SIDE else {}
    return {**side, **({"side": space["side"]} if "side" in space else {}), **kind.space, **{k: v for k, v in space.items() if k != "side"}}
