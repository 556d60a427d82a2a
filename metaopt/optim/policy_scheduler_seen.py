"""What a run has shown since the last decision: statistics, losses, and how far the weights have moved.

Everything stays on the device of the weights until a decision reads it, at once. The move needs a copy of the weights at the last decision:
that is the memory that a `PolicyScheduler` takes, beside one more copy within a step that is measured.

Legend: S = 13 statistics.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from metaopt.errors import IncompatibleCheckpointError
from metaopt.learners.policies.unitless import STATISTICS, StepMean, add_step, start_mean
from metaopt.learners.policies.unitless_adam import number_dtype

__all__ = ["Numbers", "Seen"]


class Numbers(NamedTuple):
    """What a decision reads: mean statistics (NaN if no step was measured), mean training loss, norms of the move and of the weights."""

    statistics: list[float]
    train_loss: float
    update_norm: float
    param_norm: float


class Seen:
    """Accumulators between two decisions; `forget` begins the next ones."""

    def __init__(self) -> None:
        self._weights: list[Tensor] = []
        self.forget()

    def forget(self) -> None:
        """Drop statistics and losses; weights are replaced by `remember`."""
        self._mean: StepMean | None = None
        self._loss: Tensor | float = 0.0
        self._losses = 0

    def remember(self, optimizer: Optimizer) -> None:
        """Take the present weights as those that the next move is measured from."""
        self._weights = [param.detach().clone() for param in _params(optimizer)]

    @property
    def remembers(self) -> bool:
        """Whether there are weights to measure a move from."""
        return bool(self._weights)

    def add_row(self, row: Tensor) -> None:
        """Add the statistics of a step [S]."""
        self._mean = add_step(self._mean or start_mean(row.device), row)

    def add_loss(self, loss: Tensor | float) -> None:
        """Add the training loss of a step; a tensor is not waited for."""
        if isinstance(loss, Tensor):
            loss = loss.detach().reshape(()).to(number_dtype(loss.device))
        same = not isinstance(loss, Tensor) or not isinstance(self._loss, Tensor) or loss.device == self._loss.device
        self._loss = self._loss + loss if same else self._loss + float(loss)
        self._losses += 1

    def numbers(self, optimizer: Optimizer) -> Numbers:
        """Return what was seen; waits for the device once."""
        params = [param.detach() for param in _params(optimizer)]
        update, whole = _norm(params, self._weights), _norm(params, [])
        device = update.device
        rows = [update, whole]
        if isinstance(self._loss, Tensor):
            rows.append(self._loss.to(device, update.dtype))
        if self._mean is not None:
            rows.extend(self._mean.mean.to(device, update.dtype).unbind())
        found = torch.stack(rows).tolist()
        loss = found[2] if isinstance(self._loss, Tensor) else self._loss
        statistics = [math.nan] * len(STATISTICS) if self._mean is None else found[-len(STATISTICS) :]
        return Numbers(statistics, loss / self._losses if self._losses else math.nan, found[0], found[1])

    def state_dict(self) -> dict[str, Any]:
        """Return all of it: tensors and numbers."""
        mean = None if self._mean is None else {key: value.clone() for key, value in self._mean._asdict().items()}
        loss = self._loss.clone() if isinstance(self._loss, Tensor) else self._loss
        return {"weights": [value.clone() for value in self._weights], "mean": mean, "loss": loss, "losses": self._losses}

    def load_state_dict(self, state: dict[str, Any], optimizer: Optimizer) -> None:
        """Continue from what `state_dict` returned, on the devices of the weights.

        Raises:
            IncompatibleCheckpointError: weights of other shapes; nothing has been changed.
        """
        params = _params(optimizer)
        if state["weights"]:
            shapes = [[tuple(value.shape) for value in values] for values in (state["weights"], params)]
            if shapes[0] != shapes[1]:
                raise IncompatibleCheckpointError(
                    f"state_dict has weights of shapes {_few(shapes[0])}, the optimizer {_few(shapes[1])}; build the same model"
                )
        device = params[0].device
        self._weights = [value.to(param.device, copy=True) for value, param in zip(state["weights"], params, strict=False)]
        self._mean = None if state["mean"] is None else StepMean(**{key: value.to(device) for key, value in state["mean"].items()})
        self._loss = state["loss"].clone() if isinstance(state["loss"], Tensor) else state["loss"]
        self._losses = state["losses"]


def _params(optimizer: Optimizer) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def _norm(params: Sequence[Tensor], minus: Sequence[Tensor]) -> Tensor:
    """Return the norm of all tensors, less others where there are any, on the first one's device; of none, zero."""
    parts = []
    for place, param in enumerate(params):
        wide = param if param.dtype == torch.float64 or param.is_complex() else param.float()
        if place < len(minus):
            wide = wide - minus[place].to(wide.dtype)
        parts.append(torch.linalg.vector_norm(wide))
    dtype = number_dtype(parts[0].device)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([part.to(parts[0].device, dtype) for part in parts]))
    return norm


def _few(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes[:4])) + (", .." if len(shapes) > 4 else "")
