"""Half precision: forward and backward pass in bfloat16, everything else as it was."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt.errors import TaskError
from metaopt.tasks.augmentations.reduced_batch import WithReducedBatch
from metaopt.tasks.augmentations.wrapper import Augmentation, Wrapper, wrapped
from metaopt.tasks.task import Batch, GradientState, Numbers, Params, Task

__all__ = ["Bfloat16", "InBfloat16"]


@dataclass(frozen=True)
class InBfloat16(Wrapper):
    """Weights, batch and numbers are rounded to bfloat16 for the loss; weights kept, gradients handed out, the update rule's state and
    the normalised loss have the dtype that they had.

    The loss itself is a bfloat16 number, in steps of 1 / 256 of its size.
    """

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the inner loss computed in bfloat16, in the weights' dtype."""
        dtype = next(iter(params.values())).dtype
        return self.program.loss(_round(numbers), _round(params), _round(batch)).to(dtype)

    def gradients(self, numbers: Numbers, params: Params, batch: Batch, state: GradientState) -> tuple[Params, Tensor, GradientState]:
        """Return the gradient of the loss in bfloat16, in the weights' dtype."""
        grads, loss = torch.func.grad_and_value(lambda p: self.loss(numbers, p, batch))(params)
        return grads, loss, state


@dataclass(frozen=True)
class Bfloat16(Augmentation):
    """Options of bfloat16: there are none. It fits programs that take the gradient of their loss."""

    name: ClassVar[str] = "bfloat16"

    def fits(self, task: Task) -> bool:
        """Return whether the program has no gradients of its own, which would not be computed in bfloat16."""
        program = task.program
        while isinstance(program, WithReducedBatch):
            program = program.program
        return not hasattr(program, "gradients")

    def apply(self, task: Task, seed: int) -> Task:
        """Return the task with its loss in bfloat16.

        Raises:
            TaskError: its program has gradients of its own.
        """
        if not self.fits(task):
            raise TaskError(f"{self.name} needs a program that takes the gradient of its loss, {type(task.program).__name__} does not")
        return wrapped(task, InBfloat16(task.program), {})


def _round(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(torch.bfloat16) if value.is_floating_point() else value for name, value in tensors.items()}
