"""Muon for matrices and AdamW for the rest, with one step size for both.

Source: Jordan et al., 2024, "Muon: An optimizer for hidden layers in neural networks"; Liu et al., 2025, "Muon is scalable for LLM
training" (2502.16982; a matrix's step gets the RMS of a typical AdamW step, so that both share their rate and decay). Differs:
Newton-Schulz runs in the parameter's own precision where `torch.optim.Muon` takes bfloat16; a convolution's kernel is the matrix
[out, rest]; embeddings take AdamW where the task names them, output layers do not.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metaopt.learners.update_rules.classic import AdamW, ClassicRule, Decay, Size
from metaopt.learners.update_rules.newton_schulz import orthogonalised
from metaopt.learners.update_rules.rule import State

__all__ = ["Muon"]


def _muon(h: dict[str, Any], param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    if "momentum" not in state:
        return AdamW._formula(h, param, grad, state, t)
    buffer = h["momentum"] * state["momentum"] + (1 - h["momentum"]) * grad
    ahead = (h["momentum"] * buffer + (1 - h["momentum"]) * grad).reshape(param.shape[0], -1)
    size = h["matrix_rms"] * math.sqrt(max(ahead.shape))
    return size * orthogonalised(ahead).reshape(param.shape) + h["weight_decay"] * param, {"momentum": buffer}


@dataclass(frozen=True)
class Muon(ClassicRule):
    """Orthogonalised Nesterov momentum for tensors of rank >= 2, AdamW for vectors, scalars and embeddings.

    Attributes:
        momentum, matrix_rms: of matrices: decay of the momentum, and RMS of a direction.
        beta1, beta2, eps: of AdamW.
        weight_decay: decoupled, of all.
    """

    name: ClassVar[str] = "muon"
    lr: Size = 1e-3
    weight_decay: Size = 0.1
    momentum: Decay = 0.95
    matrix_rms: Size = 0.2
    beta1: Decay = 0.9
    beta2: Decay = 0.95
    eps: Size = 1e-8
    _formula = staticmethod(_muon)

    def init_state(self, param: Tensor) -> State:
        """Return a momentum for a matrix, AdamW's moments for the rest."""
        return {"momentum": torch.zeros_like(param)} if param.dim() >= 2 else self.init_embedding_state(param)

    def init_embedding_state(self, param: Tensor) -> State:
        """Return AdamW's moments."""
        return {"m": torch.zeros_like(param), "v": torch.zeros_like(param)}
