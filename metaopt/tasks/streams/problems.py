"""Streams of small optimization problems: what a learned optimizer is trained on inside a task.

Legend: P problems, D variables, R rows of data.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.tasks.task import Batch

__all__ = ["Logistic", "Problems", "Quadratic"]

_CONDITION = (1.0, 100.0)
_CURVATURE = (0.1, 10.0)  # the largest one
_RIDGE = 0.01
_LABEL_NOISE = 0.1


def _log_uniform(key: Tensor, count: int, bounds: tuple[float, float], dtype: torch.dtype) -> Tensor:
    low, high = bounds
    return low * (high / low) ** seeds.uniform(key, (count,), dtype)


@dataclass(frozen=True)
class Quadratic:
    """0.5 x' H x in D variables from x0 ~ N(0, 1). The spectrum of H is log-uniform; two reflections turn it.

    The largest curvature is log-uniform on [0.1, 10), the condition number on [1, 100).
    """

    size: int

    def draw(self, key: Tensor, count: int, dtype: torch.dtype) -> Batch:
        """Return `hessian` [P, D, D] and `start` [P, D]."""
        d = self.size
        condition = _log_uniform(seeds.fold_in(key, 0), count, _CONDITION, dtype).unsqueeze(-1)
        curvature = _log_uniform(seeds.fold_in(key, 1), count, _CURVATURE, dtype).unsqueeze(-1)
        spectrum = curvature * condition ** -seeds.uniform(seeds.fold_in(key, 2), (count, d), dtype)
        turn = torch.eye(d, dtype=dtype, device=key.device)
        for i in range(2):
            mirror = seeds.normal(seeds.fold_in(key, 3 + i), (count, d, 1), dtype)
            mirror = mirror / mirror.square().sum(-2, keepdim=True).sqrt()
            turn = turn - 2.0 * mirror @ (mirror.transpose(-2, -1) @ turn)
        hessian = (turn * spectrum.unsqueeze(-2)) @ turn.transpose(-2, -1)
        return {"hessian": hessian, "start": seeds.normal(seeds.fold_in(key, 5), (count, d), dtype)}

    def loss(self, batch: Batch, x: Tensor) -> Tensor:
        """Return the losses [P] at x [P, D]."""
        return 0.5 * (x * self.gradient(batch, x)).sum(-1)

    def gradient(self, batch: Batch, x: Tensor) -> Tensor:
        """Return the gradients [P, D] at x [P, D]."""
        return (batch["hessian"] @ x.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Logistic:
    """Logistic regression with D weights on R = 4 D standard normal rows times a log-uniform scale, a tenth of the labels wrong,
    0.005 |w|^2 added, from w0 ~ N(0, 1)."""

    size: int

    def draw(self, key: Tensor, count: int, dtype: torch.dtype) -> Batch:
        """Return `rows` [P, R, D], each of them multiplied by its label of +1 or -1, and `start` [P, D]."""
        shape = (count, 4 * self.size, self.size)
        rows = seeds.normal(seeds.fold_in(key, 0), shape, dtype)
        truth = seeds.normal(seeds.fold_in(key, 1), (count, self.size, 1), dtype)
        wrong = seeds.uniform(seeds.fold_in(key, 2), (*shape[:2], 1), dtype) < _LABEL_NOISE
        positive = ((rows @ truth) > 0) ^ wrong
        scale = _log_uniform(seeds.fold_in(key, 3), count, _CURVATURE, dtype).sqrt().reshape(count, 1, 1)
        start = seeds.normal(seeds.fold_in(key, 4), (count, self.size), dtype)
        return {"rows": torch.where(positive, rows, -rows) * scale, "start": start}

    def loss(self, batch: Batch, x: Tensor) -> Tensor:
        """Return the losses [P] at x [P, D]."""
        margins = (batch["rows"] @ x.unsqueeze(-1)).squeeze(-1)
        return -F.logsigmoid(margins).mean(-1) + 0.5 * _RIDGE * x.square().sum(-1)

    def gradient(self, batch: Batch, x: Tensor) -> Tensor:
        """Return the gradients [P, D] at x [P, D]."""
        rows = batch["rows"]
        doubt = torch.sigmoid(-(rows @ x.unsqueeze(-1)))
        return _RIDGE * x - (rows * doubt).mean(-2)


Problems = Quadratic | Logistic
