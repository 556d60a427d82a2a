"""Arithmetic modulo a small prime, where generalising comes long after fitting: family `modular_arithmetic`.

Operation, modulus, share of the pairs that are trained on and the network are static, hence a template; initial scale and horizon vary
inside it. Batches are all training pairs. The reference of the loss is a uniform guess, log p, the floor is 0: with enough weight decay
Adam reaches both losses at nearly 0, the held-out one several hundred steps after the other. Without weight decay the held-out loss ends
at several times the reference: memorising is no divergence, so the cap is far above that.

Only a test split: what a rule does that was never meta-trained on such a task is what is of interest.

Source: Power et al., 2022, "Grokking: generalization beyond overfitting on small algorithmic datasets". Differs: networks and moduli that
two cores train in seconds, and a larger share of the pairs.
"""

import math
from collections.abc import Mapping

from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.families.supervised import Model, Supervised
from metaopt.tasks.models.symbol_nets import LastPosition, SummedSymbols
from metaopt.tasks.models.transformer import Transformer
from metaopt.tasks.sampling import Shape
from metaopt.tasks.streams.pairs import Pairs

__all__ = ["MODULAR_ARITHMETIC"]

_CAP = 30.0
_LENGTH = 2  # of a pair


def _program(shape: Shape) -> Supervised:
    modulus, width = int(shape["modulus"]), int(shape["width"])
    net: Model
    if shape["net"] == "transformer":
        heads = int(shape["heads"])
        net = LastPosition(Transformer(modulus, _LENGTH, width, heads, 2 * width, 1, str(shape["activation"]), norm="none"))
    else:
        net = SummedSymbols(modulus, width, 2 * width, str(shape["activation"]))
    return Supervised(Pairs(modulus, str(shape["operation"]), int(shape["share"])), net, cap=_CAP)


def _constants(program: Supervised) -> Mapping[str, float]:
    assert isinstance(program.stream, Pairs)
    return {"reference": math.log(program.stream.modulus), "floor": 0.0}  # the usual measurement knows no weight decay


def _grid(*shapes: Shape) -> dict[str, Shape]:
    return {f"{shape['operation']}{shape['modulus']}-{shape['net']}{shape['width']}-share{shape['share']}": shape for shape in shapes}


MODULAR_ARITHMETIC = ShapedFamily(
    "modular_arithmetic",
    {
        "meta_test": _grid(
            {"operation": "plus", "modulus": 31, "share": 60, "net": "mlp", "width": 48, "activation": "relu"},
            {"operation": "times", "modulus": 29, "share": 70, "net": "mlp", "width": 48, "activation": "relu"},
            {"operation": "plus", "modulus": 23, "share": 70, "net": "transformer", "width": 32, "heads": 2, "activation": "relu"},
        )
    },
    _program,
    _constants,
    init_scale=(0.7, 1.2),
)
