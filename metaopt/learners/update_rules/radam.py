"""RAdam: Adam whose step size is rectified while its second moment has seen few gradients.

Source: Liu et al., 2020, "On the variance of the adaptive learning rate and beyond", algorithm 2; the torch class for where epsilon stands.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metaopt.learners.update_rules.classic import Adam, one_minus_power, root
from metaopt.learners.update_rules.rule import State

__all__ = ["RAdam"]

_RECTIFIABLE = 5.0  # shorter averages have no usable variance: the step is momentum's
_SAFE = 6.0  # stands in where the branch is not taken, so that its derivative is finite


def _radam(h: dict[str, Any], param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    grad = grad + h["weight_decay"] * param
    m = h["beta1"] * state["m"] + (1 - h["beta1"]) * grad
    v = h["beta2"] * state["v"] + (1 - h["beta2"]) * grad * grad
    correction = one_minus_power(h["beta2"], t + 1, param)
    longest = torch.as_tensor(2 / (1 - h["beta2"]) - 1, dtype=param.dtype, device=param.device)
    length = longest - 2 * (t + 1).to(param.dtype) * (1 - correction) / correction
    taken = length > _RECTIFIABLE
    longest, length = (torch.where(taken, value, _SAFE) for value in (longest, length))
    rectification = torch.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    adaptive = rectification * torch.sqrt(correction) / (root(v) + h["eps"])
    return m / one_minus_power(h["beta1"], t + 1, param) * torch.where(taken, adaptive, 1.0), {"m": m, "v": v}


@dataclass(frozen=True)
class RAdam(Adam):
    """Rectified Adam; its weight decay is added to the gradient, as in `torch.optim.RAdam`."""

    name: ClassVar[str] = "radam"
    _formula = staticmethod(_radam)
