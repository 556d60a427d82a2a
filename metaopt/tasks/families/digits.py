"""Scikit-learn's digits: families `digits_mlp`, `digits_conv`, `digits_logistic` (convex), `digits_resnet` and `digits_vit`."""

from metaopt.tasks.data.digits import DIGITS
from metaopt.tasks.families.images import classification
from metaopt.tasks.sampling import Choices, Shape

__all__ = ["DIGITS_CONV", "DIGITS_LOGISTIC", "DIGITS_MLP", "DIGITS_RESNET", "DIGITS_VIT"]


def _grid(*rows: tuple[str, int, int, str, int]) -> dict[str, Shape]:
    """Return shapes by name from rows of layers, width, depth, activation and batch size."""
    return {
        f"{layers}-{activation}-b{batch}": {"width": width, "depth": depth, "activation": activation, "batch": batch}
        for layers, width, depth, activation, batch in rows
    }


DIGITS_MLP = classification(
    "digits_mlp",
    DIGITS,
    "mlp",
    {
        "meta_train": _grid(
            ("32", 32, 1, "relu", 64),
            ("16", 16, 1, "tanh", 32),
            ("64", 64, 1, "relu", 32),
            ("32x32", 32, 2, "relu", 64),
            ("24", 24, 1, "gelu", 16),
            ("16x16", 16, 2, "tanh", 64),
            ("48", 48, 1, "silu", 128),
            ("linear", 0, 0, "relu", 64),
            ("16x16x16", 16, 3, "relu", 32),
            ("32", 32, 1, "sigmoid", 64),
        ),
        "meta_valid": _grid(("96", 96, 1, "relu", 64), ("40x40", 40, 2, "tanh", 32), ("20x20x20", 20, 3, "gelu", 64)),
        "meta_test": _grid(
            ("128", 128, 1, "relu", 64), ("48x48", 48, 2, "silu", 48), ("32x32x32", 32, 3, "tanh", 64), ("56", 56, 1, "selu", 24)
        ),
    },
    init_scale=(0.5, 2.0),
    cap=4.0,
)
DIGITS_CONV = classification(
    "digits_conv",
    DIGITS,
    "conv",
    {"meta_test": _grid(("8x16", 8, 2, "relu", 32), ("12", 12, 1, "tanh", 48))},
    init_scale=(0.5, 2.0),
    cap=4.0,
)
DIGITS_LOGISTIC = classification("digits_logistic", DIGITS, "logistic", space={"side": Choices((5, 6, 8))})
DIGITS_RESNET = classification("digits_resnet", DIGITS, "resnet")
DIGITS_VIT = classification("digits_vit", DIGITS, "vit")
