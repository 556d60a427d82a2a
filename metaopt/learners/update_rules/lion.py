"""Lion: the sign of an interpolated momentum.

Source: Chen et al., 2023, "Symbolic discovery of optimization algorithms" (2302.06675), algorithm 2.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metaopt.learners.update_rules.classic import ClassicRule, Decay, Size
from metaopt.learners.update_rules.rule import State

__all__ = ["Lion"]


def _lion(h: dict[str, Any], param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    direction = torch.sign(h["beta1"] * state["m"] + (1 - h["beta1"]) * grad)
    m = h["beta2"] * state["m"] + (1 - h["beta2"]) * grad
    return direction + h["weight_decay"] * param, {"m": m}


@dataclass(frozen=True)
class Lion(ClassicRule):
    """The sign of an interpolated momentum, with decoupled weight decay; derivatives in its betas are zero, as a sign's are."""

    name: ClassVar[str] = "lion"
    tensors: ClassVar[tuple[str, ...]] = ("m",)
    lr: Size = 1e-4
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    weight_decay: Size = 0.0
    _formula = staticmethod(_lion)
