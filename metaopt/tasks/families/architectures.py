"""How the shape of a template becomes a network for a data set, and from which space shapes are drawn.

A step of sixteen particles is to stay in the order of milliseconds on one core of a laptop, so that shapes whose training batch takes more
than a million multiplications (forward, one particle) are not drawn. The spaces are those of the published distributions, cut to that.

Source: Metz et al., 2022, "VeLO", appendix on the task distribution (axes, activations, initialisers).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from metaopt.tasks.families.supervised import Model
from metaopt.tasks.models.conv import ConvNet
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.parts import ACTIVATIONS, INITIALISERS
from metaopt.tasks.models.residual import ResidualNet
from metaopt.tasks.models.vision_transformer import VisionTransformer
from metaopt.tasks.sampling import Axis, Choices, Integers, LogIntegers, Shape

__all__ = ["ARCHITECTURES", "Architecture", "example_shape"]

_LARGEST_BATCH = 1_000_000  # multiplications
_ACTIVATIONS = Choices(("relu", *ACTIVATIONS))  # relu twice, as in VeLO
_INITIALISERS = Choices(INITIALISERS)

Extent = tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """A class of networks.

    Attributes:
        name: last part of a family's name.
        space: axes of its shapes; a family may add `side`, the height and width that images are brought to.
        model: (shape, extent of an example, classes) -> network.
        cost: the same arguments -> multiplications of one example, forward.
        dimensions: axes of an example that it takes beside the channels; empty: any.
        canonical: removes axes that do not matter for a shape.
    """

    name: str
    space: Mapping[str, Axis]
    model: Callable[[Shape, Extent, int], Model]
    cost: Callable[[Shape, Extent, int], float]
    dimensions: tuple[int, ...] = ()
    canonical: Callable[[Shape], Shape] = dict

    def wanted(self, shape: Shape, extent: Extent, classes: int) -> Shape | None:
        """Return the canonical form of a shape, None if a step of it would take too long."""
        shape = self.canonical(shape)
        cost = number(shape, "batch") * self.cost(shape, example_shape(shape, extent), classes)
        return shape if cost <= _LARGEST_BATCH else None


def number(shape: Shape, axis: str, default: int | None = None) -> int:
    """Return an integer axis of a shape; a missing one is its default."""
    return int(shape[axis] if default is None else shape.get(axis, default))


def word(shape: Shape, axis: str, default: str) -> str:
    """Return a named axis of a shape; a missing one is its default."""
    return str(shape.get(axis, default))


def example_shape(shape: Shape, extent: Extent) -> Extent:
    """Return the extent of an example after the axis `side`, if there is one."""
    return (extent[0], *[number(shape, "side")] * (len(extent) - 1)) if "side" in shape else extent


def _mlp_sizes(shape: Shape, extent: Extent, classes: int) -> tuple[int, ...]:
    depth = number(shape, "depth", 0)
    hidden = (number(shape, "width"),) * depth if depth else ()
    return (math.prod(extent), *hidden, classes)


def _mlp(shape: Shape, extent: Extent, classes: int) -> Model:
    parts = word(shape, "activation", "relu"), word(shape, "initialiser", "normal"), word(shape, "norm", "none")
    return MLP(_mlp_sizes(shape, extent, classes), *parts, word(shape, "parametrisation", "standard"))


def _mlp_cost(shape: Shape, extent: Extent, classes: int) -> float:
    sizes = _mlp_sizes(shape, extent, classes)
    return sum(a * b for a, b in pairwise(sizes))


def _without_hidden_layers(shape: Shape) -> Shape:
    """Leave out what a network of depth 0 does not have."""
    return {axis: v for axis, v in shape.items() if axis not in ("width", "activation", "norm")} if shape["depth"] == 0 else shape


def _channels(shape: Shape) -> tuple[int, ...]:
    return tuple(number(shape, "width") * 2**i for i in range(number(shape, "depth")))


def _conv(shape: Shape, extent: Extent, classes: int) -> Model:
    return ConvNet(
        extent,
        _channels(shape),
        classes,
        word(shape, "activation", "relu"),
        word(shape, "initialiser", "normal"),
        word(shape, "norm", "none"),
        number(shape, "stride", 1),
        word(shape, "pooling", "mean"),
    )


def _conv_cost(shape: Shape, extent: Extent, classes: int) -> float:
    channels, kernel = (extent[0], *_channels(shape)), 3 ** (len(extent) - 1)
    sides, total = list(extent[1:]), 0
    for i, (a, b) in enumerate(pairwise(channels)):
        stride = number(shape, "stride", 1) if i == 0 else 2
        sides = [-(-side // stride) for side in sides]
        total += math.prod(sides) * kernel * a * b
    return total + channels[-1] * classes


def _widths(shape: Shape) -> tuple[int, ...]:
    return tuple(number(shape, "width") * 2**i for i in range(number(shape, "groups")))


def _residual(shape: Shape, extent: Extent, classes: int) -> Model:
    parts = word(shape, "activation", "relu"), word(shape, "initialiser", "normal"), word(shape, "norm", "layer_norm")
    return ResidualNet(extent, _widths(shape), number(shape, "blocks"), classes, *parts)


def _residual_cost(shape: Shape, extent: Extent, classes: int) -> float:
    widths = _widths(shape)
    positions = [math.prod(-(-side // 2**g) for side in extent[1:]) for g in range(len(widths))]
    blocks = sum(p * w * w for p, w in zip(positions, widths, strict=True)) * number(shape, "blocks")
    return float(9 * (positions[0] * extent[0] * widths[0] + 2 * blocks))


def _transformer(shape: Shape, extent: Extent, classes: int) -> Model:
    return VisionTransformer(
        extent,
        number(shape, "patch"),
        number(shape, "width"),
        number(shape, "heads"),
        number(shape, "width") * number(shape, "expansion", 2),
        number(shape, "layers"),
        classes,
        word(shape, "activation", "gelu"),
        word(shape, "initialiser", "normal"),
        word(shape, "norm", "layer_norm"),
    )


def _transformer_cost(shape: Shape, extent: Extent, classes: int) -> float:
    width, tokens = number(shape, "width"), math.prod(side // number(shape, "patch") for side in extent[1:])
    layer = (4 + 2 * number(shape, "expansion", 2)) * width**2 + 2 * tokens * width
    return tokens * (number(shape, "layers") * layer + extent[0] * number(shape, "patch") ** 2 * width)


ARCHITECTURES = {
    "mlp": Architecture(
        "mlp",
        {
            "width": LogIntegers(8, 128),
            "depth": Choices((0, *(1, 2, 3) * 3, 4, 4)),  # linear ones are cheap, hence seldom refused
            "activation": _ACTIVATIONS,
            "initialiser": _INITIALISERS,
            "norm": Choices(("none", "none", "none", "layer_norm", "rms_norm")),
            "batch": LogIntegers(4, 512),
        },
        _mlp,
        _mlp_cost,
        canonical=_without_hidden_layers,
    ),
    "logistic": Architecture(
        "logistic",
        {"initialiser": Choices(("normal", "uniform", "orthogonal")), "batch": LogIntegers(4, 512)},
        _mlp,
        _mlp_cost,
    ),
    "conv": Architecture(
        "conv",
        {
            "width": LogIntegers(6, 32),
            "depth": Choices((2, 2, 3)),  # one layer under mean pooling learns next to nothing
            "activation": _ACTIVATIONS,
            "initialiser": _INITIALISERS,
            "norm": Choices(("none", "none", "layer_norm", "batch_norm")),
            "stride": Choices((1, 2)),
            "pooling": Choices(("mean", "max")),
            "batch": LogIntegers(4, 128),
        },
        _conv,
        _conv_cost,
        (1, 2),
    ),
    "resnet": Architecture(
        "resnet",
        {
            "width": LogIntegers(4, 16),
            "groups": Integers(1, 2),
            "blocks": Integers(1, 2),
            "activation": _ACTIVATIONS,
            "initialiser": _INITIALISERS,
            "norm": Choices(("layer_norm", "batch_norm")),
            "batch": LogIntegers(4, 64),
        },
        _residual,
        _residual_cost,
        (2,),
    ),
    "vit": Architecture(
        "vit",
        {
            "patch": Choices((2, 4)),
            "width": Choices((8, 16, 32)),
            "heads": Choices((1, 2, 4)),
            "expansion": Choices((1, 2, 4)),
            "layers": Integers(1, 2),
            "activation": _ACTIVATIONS,
            "initialiser": _INITIALISERS,
            "norm": Choices(("layer_norm", "rms_norm")),
            "batch": LogIntegers(4, 64),
        },
        _transformer,
        _transformer_cost,
        (2,),
    ),
}
