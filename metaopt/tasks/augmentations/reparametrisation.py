"""Augmentations: programs that change the inner problem a learner meets without changing what it means to solve it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaopt.tasks.sampling import Sampler
from metaopt.tasks.task import Batch, Numbers, Params, Program, Task

__all__ = ["Reparametrised", "reparametrise"]


@dataclass(frozen=True)
class Reparametrised:
    """The same function of w' = w / s instead of w, one s for the whole model: gradients scale by s, losses do not change.

    Numbers: those of `program`, and `reparametrisation` (s).
    Source: Metz et al., 2022, "VeLO", appendix on task augmentation (global level).
    """

    program: Program

    @property
    def cap(self) -> float:
        """The inner program's cap."""
        return self.program.cap

    def shared(self) -> Batch:
        """Return the inner program's data."""
        return self.program.shared()

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return w / s of the inner program's fresh w."""
        return {k: w / numbers["reparametrisation"] for k, w in self.program.init(numbers, key).items()}

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the inner program's batch."""
        return self.program.batch(numbers, shared, key, step)

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the inner program's held-out batch."""
        return self.program.heldout(numbers, shared, key, step)

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the inner loss at s w'."""
        return self.program.loss(numbers, {k: w * numbers["reparametrisation"] for k, w in params.items()}, batch)

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the inner program's normalised loss."""
        return self.program.normalise(numbers, raw)


def reparametrise(task: Task, seed: int, scale: tuple[float, float]) -> Task:
    """Return the task in variables w / s, s log-uniform on `scale`, drawn from `seed`."""
    factor = Sampler("augmentation", "reparametrisation", seed).log_uniform("scale", *scale)
    numbers = {**task.numbers, "reparametrisation": torch.tensor(factor, dtype=task.horizon.dtype)}
    return replace(task, program=Reparametrised(task.program), numbers=numbers)
