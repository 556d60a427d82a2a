"""Fully connected networks on rows of a table: families `tabular_classification` and `tabular_regression`.

The table, widths, depth, activation, initialiser, normalisation and batch size are static, hence a template; initial scale and horizon
vary inside it. Labels are predicted by cross-entropy (reference: a uniform guess, log C), amounts by squared error (reference: the variance
of the training amounts, which is what their mean reaches). Output layers begin small, so that every net begins near the reference.
"""

import math
from collections.abc import Mapping
from functools import partial

from metaopt.errors import TaskError
from metaopt.names import nearest
from metaopt.tasks.data.data_set import Source
from metaopt.tasks.data.tables import BREAST_CANCER, DIABETES, IRIS, WINE
from metaopt.tasks.families.architectures import ARCHITECTURES, number
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.families.supervised import Supervised
from metaopt.tasks.floors import floor
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.small_head import SmallHead
from metaopt.tasks.sampling import Axis, Choices, Integers, LogIntegers, Shape, draw_templates
from metaopt.tasks.streams.arrays import Examples

__all__ = ["TABULAR_CLASSIFICATION", "TABULAR_REGRESSION", "tables"]

_MLP = ARCHITECTURES["mlp"]
_SPACE = {**_MLP.space, "width": LogIntegers(8, 64), "depth": Integers(0, 3), "batch": LogIntegers(8, 128, multiple=4)}
_COUNTS = {"meta_train": 10, "meta_valid": 3, "meta_test": 4}


def tables(
    name: str,
    sources: tuple[Source, ...],
    grid: Mapping[str, Mapping[str, Shape]] | None = None,
    space: Mapping[str, Axis] | None = None,
    counts: Mapping[str, int] | None = None,
    init_scale: tuple[float, float] = (0.5, 2.0),
) -> ShapedFamily[Supervised]:
    """Return the family of networks on some tables, all of labels or all of amounts. Nothing is read until a task is built.

    Args:
        name: of the family.
        sources: the tables; with more than one, `data` (a table's name) is an axis of a shape.
        grid: split -> {template: shape}; default: drawn.
        space: axes that replace those of the bundled families (width, depth, activation, initialiser, norm, batch).
        counts: split -> number of templates to draw; default: 10, 3 and 4.
        init_scale: closed range of the log-uniform factor of the initial weights.

    Raises:
        TaskError: a data set is no table, tables of labels and of amounts are mixed, or an axis is unknown.
    """
    for source in sources:
        if len(source.shape) != 1:
            raise TaskError(f"family {name}: data set {source.name!r} has examples of shape {source.shape}; a table's have one axis")
    if len({source.classes == 0 for source in sources}) != 1:
        kinds = ", ".join(f"{source.name} has {'amounts' if source.classes == 0 else 'labels'}" for source in sources)
        raise TaskError(f"family {name}: tables must all have labels or all amounts, but {kinds or 'there is none'}")
    for axis in space or {}:
        if axis not in _SPACE:
            raise TaskError(f"family {name}: axis {axis!r} is unknown{nearest(axis, _SPACE)}")
    data: dict[str, Axis] = {"data": Choices(tuple(source.name for source in sources))} if len(sources) > 1 else {}
    drawn = grid or draw_templates(name, {**data, **_SPACE, **(space or {})}, counts or _COUNTS, _MLP.canonical)
    by_name = {source.name: source for source in sources}
    return ShapedFamily(name, drawn, partial(_program, by_name), partial(_constants, name), init_scale)


def _program(sources: Mapping[str, Source], shape: Shape) -> Supervised:
    source = sources[str(shape.get("data", next(iter(sources))))]
    amounts = source.classes == 0
    net = _MLP.model(shape, source.shape, 1 if amounts else source.classes)
    assert isinstance(net, MLP)
    return Supervised(Examples(source, source.shape, number(shape, "batch")), SmallHead(net), amounts)


def _constants(name: str, program: Supervised) -> Mapping[str, float]:
    if program.amounts:
        return {"reference": float(program.shared()["train_y"].var(correction=0)), "floor": floor(name)}
    assert isinstance(program.stream, Examples)
    return {"reference": math.log(program.stream.source.classes), "floor": floor(name)}


TABULAR_CLASSIFICATION = tables("tabular_classification", (BREAST_CANCER, WINE, IRIS))
TABULAR_REGRESSION = tables("tabular_regression", (DIABETES,))
