"""Character language models on Python's own reference text: families `text_rnn`, `text_gru`, `text_lstm` and `text_transformer`.

Architecture, length of a window and batch size are static, hence a template; initial scale and horizon vary inside it. Specs carry the
digest of the text, because the text differs a little between Python versions: a stored result never passes for one on another text.

The reference of the loss is a uniform guess, log V, which is where models begin; the frequencies of single characters reach 0.77 of it.
"""

import math
from functools import partial

from metaopt.tasks.families.architectures import number
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.families.supervised import Model, Supervised
from metaopt.tasks.floors import floor
from metaopt.tasks.models.recurrent import GATES, RecurrentNet
from metaopt.tasks.models.transformer import Transformer
from metaopt.tasks.sampling import Axis, Choices, Integers, LogIntegers, Shape, draw_templates
from metaopt.tasks.streams.text import Text, text_digest

__all__ = ["TEXT_GRU", "TEXT_LSTM", "TEXT_RNN", "TEXT_TRANSFORMER", "digest_mark", "transformer"]

_COUNTS = {"meta_train": 8, "meta_valid": 2, "meta_test": 3}
_INIT_SCALE = (0.5, 1.5)
_LARGEST_BATCH = 4_000_000  # multiplications, forward, one particle: sixteen are to stay in the order of ten milliseconds a step


def digest_mark() -> dict[str, str]:
    """Return the digest of the text as a value of specs."""
    return {"text": text_digest()}


def _stream(shape: Shape) -> Text:
    return Text(int(shape["batch"]), int(shape["length"]))


def _recurrent(shape: Shape) -> Supervised:
    model: Model = RecurrentNet(str(shape["cell"]), Text.classes, int(shape["embedding"]), int(shape["hidden"]), int(shape["layers"]))
    return Supervised(_stream(shape), model)


def transformer(shape: Shape) -> Supervised:
    """Return the program of a transformer's shape; its axis `parametrisation` may be left out."""
    stream, width = _stream(shape), int(shape["width"])
    model: Model = Transformer(
        stream.classes,
        stream.length,
        width,
        heads=int(shape["heads"]),
        hidden=width * int(shape["expansion"]),
        layers=int(shape["layers"]),
        activation=str(shape["activation"]),
        norm=str(shape["norm"]),
        parametrisation=str(shape.get("parametrisation", "standard")),
    )
    return Supervised(stream, model)


def _affordable(shape: Shape) -> Shape | None:
    """Return the shape, None if a step of it would take too long."""
    layers, length = number(shape, "layers"), number(shape, "length")
    if "cell" in shape:
        hidden, outer = number(shape, "hidden"), number(shape, "embedding") + number(shape, "hidden")
        first = GATES[str(shape["cell"])] * hidden
        cost = first * outer + (layers - 1) * first * 2 * hidden + Text.classes * outer
    else:
        width = number(shape, "width")
        cost = layers * ((4 + 2 * number(shape, "expansion")) * width**2 + 2 * length * width) + 2 * Text.classes * width
    return shape if cost * length * number(shape, "batch") <= _LARGEST_BATCH else None


def _constants(name: str, program: Supervised) -> dict[str, float]:
    return {"reference": math.log(Text.classes), "floor": floor(name)}


def _recurrent_family(name: str, cells: tuple[str, ...], hidden: int, length: int) -> ShapedFamily[Supervised]:
    space: dict[str, Axis] = {
        "cell": Choices(cells),
        "embedding": LogIntegers(8, 32, multiple=4),
        "hidden": LogIntegers(8, hidden, multiple=4),
        "layers": Choices((1, 1, 2)),
        "length": LogIntegers(8, length, multiple=4),
        "batch": LogIntegers(8, 32, multiple=4),
    }
    return ShapedFamily(
        name,
        draw_templates(name, space, _COUNTS, _affordable),
        _recurrent,
        partial(_constants, name),
        _INIT_SCALE,
        marks=digest_mark,
    )


TEXT_RNN = _recurrent_family("text_rnn", ("rnn", "irnn"), hidden=64, length=32)
TEXT_GRU = _recurrent_family("text_gru", ("gru",), hidden=48, length=24)
TEXT_LSTM = _recurrent_family("text_lstm", ("lstm",), hidden=48, length=24)
TEXT_TRANSFORMER = ShapedFamily(
    "text_transformer",
    draw_templates(
        "text_transformer",
        {
            "width": LogIntegers(12, 48, multiple=4),
            "heads": Choices((1, 2, 4)),
            "expansion": Choices((1, 2, 4)),
            "layers": Integers(1, 2),
            "activation": Choices(("gelu", "relu", "silu", "tanh")),
            "norm": Choices(("layer_norm", "rms_norm")),
            "length": LogIntegers(8, 32, multiple=4),
            "batch": LogIntegers(8, 32, multiple=4),
        },
        _COUNTS,
        _affordable,
    ),
    transformer,
    partial(_constants, "text_transformer"),
    _INIT_SCALE,
    marks=digest_mark,
)
