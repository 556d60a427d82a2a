"""Digits in maximal update parametrisation: family `digits_mlp_mu`, whose splits differ in width.

The initial scale is 1: the parametrisation says what the initial weights are.
"""

from metaopt.tasks.data.digits import DIGITS
from metaopt.tasks.families.images import classification
from metaopt.tasks.sampling import Shape

__all__ = ["DIGITS_MLP_MU"]


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
