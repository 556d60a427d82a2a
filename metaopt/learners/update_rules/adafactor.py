"""Adafactor: second moments as a row times a column, and steps relative to the size of the parameter.

Source: Shazeer, Stern, 2018, "Adafactor: Adaptive learning rates with sublinear memory cost" (1804.04235), algorithms 4 and 5, as in
`torch.optim.Adafactor`. Differs: the cap 1 / sqrt(t) of the step size holds before a schedule scales it, not after.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor

from metaopt.learners.update_rules.classic import ClassicRule, Size, root
from metaopt.learners.update_rules.rule import State

__all__ = ["Adafactor"]

_SMALLEST_RMS = 1e-3  # of a parameter, torch's second epsilon: where steps relative to it would never leave zero


def _rms(x: Tensor) -> Tensor:
    return root((x * x).mean())


def _adafactor(h: dict[str, Any], param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    count, tiny = (t + 1).to(param.dtype), torch.finfo(param.dtype).eps
    fresh = count ** h["beta2_decay"]
    square = grad * grad
    means = {"v": square} if "v" in state else {"row": square.mean(-1, keepdim=True), "column": square.mean(-2, keepdim=True)}
    new = {name: state[name] + fresh * (mean - state[name]) for name, mean in means.items()}
    second = new["v"] if "v" in new else new["row"] @ new["column"] / new["row"].mean(-2, keepdim=True).clamp(min=tiny)
    direction = grad * torch.rsqrt(second.clamp(min=tiny * tiny))
    direction = direction / (_rms(direction) / h["clip"]).clamp(min=1.0)
    lr = torch.as_tensor(h["lr"], dtype=param.dtype, device=param.device)
    capped = (1.0 / (lr.clamp(min=tiny) * torch.sqrt(count))).clamp(max=1.0)
    return _rms(param).clamp(min=_SMALLEST_RMS) * capped * direction + h["weight_decay"] * param, new


@dataclass(frozen=True)
class Adafactor(ClassicRule):
    """Adafactor without momentum, with decoupled weight decay.

    Attributes:
        lr: of the parameter's RMS; at update t it is at most 1 / sqrt(t).
        beta2_decay: the second moment forgets t**beta2_decay of itself at update t.
        clip: largest RMS of a direction before it is scaled.
    """

    name: ClassVar[str] = "adafactor"
    lr: Size = 1e-2
    beta2_decay: Annotated[float, Le(0)] = -0.8
    clip: Annotated[float, Ge(0)] = 1.0
    weight_decay: Size = 0.0
    _formula = staticmethod(_adafactor)

    def init_state(self, param: Tensor) -> State:
        """Return row and column moments over the last two axes, or for vectors and scalars the whole second moment."""
        if param.dim() < 2:
            return {"v": torch.zeros_like(param)}
        return {"row": torch.zeros_like(param[..., :1]), "column": torch.zeros_like(param[..., :1, :])}
