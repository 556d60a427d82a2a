"""Recurrent nets that keep one bit in mind: families `xor` (parity of a sequence of bits) and `binary_addition` (the sum of two numbers).

Cell, width, layers, length and batch size are static, hence a template; initial scale and horizon vary inside it. Every training batch is
a fresh draw, and a fixed set of sequences is held out that training never meets (see `metaopt.tasks.streams.bits`). An answer is asked for
at each position: to the sequence so far. With one answer at the end, tuned Adam finds the parity of 8 bits on some seeds and that of 12 on
none within 600 steps (16 units of each cell, batches of 32).

The reference of the loss is a uniform guess, log 2; the floor is 0, which the right answers have: a tanh net by hand gives them, and Adam
with warm-up and cosine at the best of five rates comes within 0.003 on all templates of meta-training in 400 steps
(`python scripts/measure_floors.py xor binary_addition`). AdamW at a constant 0.03, raw held-out losses before the first and after 100,
200 and 300 steps, means over eight seeds, and the worst seed at the end
(`inner.run(learners.get("adamw", lr=0.03), {}, [the family's tasks of seeds 0 to 7, horizon 300], range(8), 300, eval_every=100)`):

    xor rnn-hidden16-layers1-length12-batch24              0.740  0.103  0.017  0.024  (0.180)
    xor gru-hidden16-layers1-length16-batch24              0.716  0.012  0.001  0.000  (0.002)
    xor lstm-hidden16-layers1-length16-batch8              0.713  0.001  0.000  0.000  (0.000)
    binary_addition rnn-hidden48-layers1-length8-batch32   0.739  0.000  0.000  0.000  (0.000)
    binary_addition gru-hidden16-layers2-length8-batch16   0.715  0.000  0.000  0.000  (0.000)
    binary_addition lstm-hidden24-layers1-length8-batch16  0.723  0.000  0.000  0.000  (0.000)
"""

import math
from collections.abc import Callable, Mapping

from metaopt.tasks.families.architectures import number
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.families.supervised import Supervised
from metaopt.tasks.models.recurrent import GATES, RecurrentNet
from metaopt.tasks.models.sequence_reader import SequenceReader
from metaopt.tasks.sampling import Axis, Choices, Integers, LogIntegers, Shape, draw_templates
from metaopt.tasks.streams.bits import Addition, Parity

__all__ = ["BINARY_ADDITION", "XOR"]

_COUNTS = {"meta_train": 8, "meta_valid": 2, "meta_test": 3}
_INIT_SCALE = (0.5, 1.5)
_EMBEDDING = 8  # more than enough for two or four symbols
_LARGEST_BATCH = 4_000_000  # multiplications, forward, one particle: as for language models

Bits = Parity | Addition


def _affordable(shape: Shape) -> Shape | None:
    """Return the shape, None if a step of it would take too long."""
    hidden, layers = number(shape, "hidden"), number(shape, "layers")
    cost = GATES[str(shape["cell"])] * hidden * (_EMBEDDING + hidden + (layers - 1) * 2 * hidden)
    return shape if cost * number(shape, "length") * number(shape, "batch") <= _LARGEST_BATCH else None


def _constants(program: Supervised) -> Mapping[str, float]:
    assert isinstance(program.stream, Bits)
    return {"reference": math.log(program.stream.classes), "floor": 0.0}


def _family(name: str, stream: Callable[[int, int], Bits], shortest: int) -> ShapedFamily[Supervised]:
    def program(shape: Shape) -> Supervised:
        bits = stream(number(shape, "batch"), number(shape, "length"))
        net = RecurrentNet(str(shape["cell"]), bits.symbols, _EMBEDDING, number(shape, "hidden"), number(shape, "layers"))
        return Supervised(bits, SequenceReader(net, bits.classes))

    space: dict[str, Axis] = {
        "cell": Choices(("rnn", "gru", "lstm")),
        "hidden": LogIntegers(16, 128, multiple=8),
        "layers": Integers(1, 2),
        "length": LogIntegers(shortest, 24, multiple=4),
        "batch": LogIntegers(8, 64, multiple=8),
    }
    return ShapedFamily(name, draw_templates(name, space, _COUNTS, _affordable), program, _constants, _INIT_SCALE)


XOR = _family("xor", Parity, shortest=12)
BINARY_ADDITION = _family("binary_addition", Addition, shortest=8)
