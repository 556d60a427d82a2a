"""Reduced batches: the gradient of fewer examples in tensors of the same shape."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.augmentations.wrapper import Augmentation, Share, Wrapper, wrapped
from metaopt.tasks.sampling import Sampler
from metaopt.tasks.task import Batch, Numbers, Task

__all__ = ["ReducedBatch", "WithReducedBatch"]

_SAME = 1e-6  # relative, float64: a sum in another order


@dataclass(frozen=True)
class WithReducedBatch(Wrapper):
    """The first m of the B rows of every training batch, repeated B / m times: loss and gradient are those of the m rows alone.

    m divides B, so that every row that stays has the same weight; it is a number, and batches are drawn outside compiled steps: one program
    serves all fractions. Held-out batches stay whole.

    Numbers: those of `program`, and `reduced_batch` (m, int64).
    """

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the reduced batch of the inner program's."""
        batch = super().batch(numbers, shared, key, step)
        rows = next(iter(batch.values())).shape[0]
        chosen = torch.remainder(torch.arange(rows, device=key.device), numbers["reduced_batch"])
        return {name: value.index_select(0, chosen) for name, value in batch.items()}


@dataclass(frozen=True)
class ReducedBatch(Augmentation):
    """Options of reduced batches. They fit tasks whose batches are rows of exchangeable examples.

    Attributes:
        fraction: closed range of the log-uniform share of the batch that stays, rounded to the divisor of the batch size that is nearest
            in its logarithm: powers of two reduce finely, a prime number of rows to all or one.
    """

    name: ClassVar[str] = "reduced_batch"
    fraction: tuple[Share, Share] = (0.01, 1.0)

    def fits(self, task: Task) -> bool:
        """Return whether the batches are rows of exchangeable examples, at least two."""
        return _rows(task) > 1

    def apply(self, task: Task, seed: int) -> Task:
        """Return the task on reduced batches.

        Raises:
            TaskError: its batches are not rows of examples.
        """
        if (rows := _rows(task)) < 2:
            raise TaskError(f"{self.name} needs batches of two or more exchangeable rows, {type(task.program).__name__} has none")
        wanted = rows * Sampler("augmentation", self.name, seed).log_uniform("fraction", *self.fraction)
        kept = min((m for m in range(1, rows + 1) if rows % m == 0), key=lambda m: max(m / wanted, wanted / m))
        return wrapped(task, WithReducedBatch(task.program), {self.name: torch.tensor(kept, dtype=torch.int64)})


_found: dict[object, int] = {}


def _rows(task: Task) -> int:
    """Return B where every entry of a training batch has B exchangeable rows on axis 0, else 0; the answer is kept by program.

    Rows are exchangeable if the loss of a batch upside down is the same: so a vector that is no list of examples is found out.
    """
    if task.program not in _found:
        _found[task.program] = _count_rows(task)
    return _found[task.program]


def _count_rows(task: Task) -> int:
    fine, key = task.to(dtype=torch.float64), seeds.key("rows")
    batch = fine.batch(key, torch.tensor(0))
    sizes = {value.shape[0] if value.dim() else 0 for value in batch.values()}
    if len(sizes) != 1 or sizes == {0} or all(torch.equal(value, value.flip(0)) for value in batch.values()):
        return 0  # rows that are all alike are no examples
    params = fine.init(key)
    losses = [fine.loss(params, {name: value.flip(0) if turned else value for name, value in batch.items()}) for turned in (False, True)]
    return sizes.pop() if bool((losses[0] - losses[1]).abs() <= _SAME * losses[0].abs()) else 0
