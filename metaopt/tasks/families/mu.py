"""Maximal update parametrisation: families `digits_mlp_mu` and `text_transformer_mu`, whose splits differ in width.

The initial scale is 1: the parametrisation says what the initial weights are.
"""

import math

from metaopt.tasks.data.digits import DIGITS
from metaopt.tasks.families.images import classification
from metaopt.tasks.families.language import digest_mark, transformer
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.families.supervised import Supervised
from metaopt.tasks.floors import floor
from metaopt.tasks.sampling import Shape
from metaopt.tasks.streams.text import Text

__all__ = ["DIGITS_MLP_MU", "TEXT_TRANSFORMER_MU"]


def _grid(*rows: tuple[int, int, str, int]) -> dict[str, Shape]:
    """Return shapes by name from rows of width, depth, activation and batch size."""
    return {
        f"{width}x{depth}-{activation}-b{batch}": {
            "width": width,
            "depth": depth,
            "activation": activation,
            "batch": batch,
            "parametrisation": "mu",
        }
        for width, depth, activation, batch in rows
    }


DIGITS_MLP_MU = classification(
    "digits_mlp_mu",
    DIGITS,
    "mlp",
    {
        "meta_train": _grid((16, 3, "relu", 64), (32, 3, "relu", 64), (64, 3, "relu", 64), (32, 2, "tanh", 32), (96, 2, "relu", 64)),
        "meta_valid": _grid((48, 3, "relu", 64), (128, 3, "relu", 64)),
        "meta_test": _grid((192, 3, "relu", 64), (256, 3, "relu", 64), (512, 3, "relu", 64)),
    },
    init_scale=(1.0, 1.0),
    cap=4.0,
)


def _text_grid(*rows: tuple[int, int]) -> dict[str, Shape]:
    """Return shapes by name from rows of width and layers; batch and length are 16, two heads share the width."""
    same: Shape = {"heads": 2, "expansion": 2, "activation": "gelu", "norm": "layer_norm", "length": 16, "batch": 16}
    return {f"{width}x{layers}": {**same, "width": width, "layers": layers, "parametrisation": "mu"} for width, layers in rows}


def _text_constants(_: Supervised) -> dict[str, float]:
    return {"reference": math.log(Text.classes), "floor": floor("text_transformer_mu")}


TEXT_TRANSFORMER_MU = ShapedFamily(
    "text_transformer_mu",
    {
        "meta_train": _text_grid((12, 1), (16, 2), (24, 1)),
        "meta_valid": _text_grid((32, 1)),
        "meta_test": _text_grid((48, 2), (64, 1)),
    },
    transformer,
    _text_constants,
    (1.0, 1.0),
    marks=digest_mark,
)
