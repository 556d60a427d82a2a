"""A picture as a function of its coordinates: family `neural_field`.

Picture, encoding of the coordinates, width, depth, activation and batch size are static, hence a template; initial scale and horizon vary
inside it. Held-out pixels lie between those that are trained on. The reference of the squared error is the variance of the training
pixels, which is what their mean reaches; output layers begin small, so that nets begin there.

Only a test split: no rule is meta-trained on it.
"""

from collections.abc import Mapping

from metaopt.tasks.data.pictures import PICTURES
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.families.supervised import Supervised
from metaopt.tasks.floors import floor
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.small_head import SmallHead
from metaopt.tasks.sampling import Shape
from metaopt.tasks.streams.coordinates import Coordinates

__all__ = ["NEURAL_FIELD"]

_NAME = "neural_field"


def _program(shape: Shape) -> Supervised:
    stream = Coordinates(PICTURES[str(shape["data"])], int(shape["batch"]), int(shape["features"]), float(shape["frequency"]))
    widths = (int(shape["width"]),) * int(shape["depth"])
    return Supervised(stream, SmallHead(MLP((stream.inputs, *widths, 1), str(shape["activation"]))), amounts=True)


def _constants(program: Supervised) -> Mapping[str, float]:
    return {"reference": float(program.shared()["train_y"].var(correction=0)), "floor": floor(_NAME)}


def _grid(*shapes: Shape) -> dict[str, Shape]:
    axes = ("features", "width", "depth", "activation", "batch")
    return {"-".join([str(s["data"]), *(str(s[axis]) if axis == "activation" else f"{axis}{s[axis]}" for axis in axes)]): s for s in shapes}


NEURAL_FIELD = ShapedFamily(
    _NAME,
    {
        "meta_test": _grid(
            {"data": "ihc", "features": 32, "frequency": 2.0, "width": 48, "depth": 2, "activation": "relu", "batch": 128},
            {"data": "brick", "features": 48, "frequency": 3.0, "width": 48, "depth": 2, "activation": "relu", "batch": 128},
            {"data": "page", "features": 0, "frequency": 4.0, "width": 64, "depth": 2, "activation": "sin", "batch": 128},
        )
    },
    _program,
    _constants,
)
