"""Re-parametrisation: the same function of other variables, so that gradients have other scales."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.tasks.augmentations.wrapper import Augmentation, Positive, Wrapper, wrapped
from metaopt.tasks.sampling import Sampler
from metaopt.tasks.task import Batch, GradientState, Numbers, Params, Task, program_gradients

__all__ = ["Reparametrisation", "Reparametrised", "reparametrise"]

_LEVELS = ("global", "tensor", "element")


@dataclass(frozen=True)
class Reparametrised(Wrapper):
    """The same function of w' = w / s instead of w: gradients scale by s, losses do not change.

    Numbers: those of `program`, and `reparametrisation` (one s for the whole model, level "global") or `reparametrisation.NAME` for every
    parameter: 0-d (level "tensor") or of its shape ("element").

    Source: Metz et al., 2022, "VeLO", appendix on task augmentation.
    """

    level: str = "global"

    def _scale(self, numbers: Numbers, name: str) -> Tensor:
        return numbers["reparametrisation" if self.level == "global" else f"reparametrisation.{name}"]

    def _scaled(self, numbers: Numbers, params: Params) -> Params:
        return {name: value * self._scale(numbers, name) for name, value in params.items()}

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return w / s of the inner program's fresh w."""
        return {name: w / self._scale(numbers, name) for name, w in self.program.init(numbers, key).items()}

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the inner loss at s w'."""
        return self.program.loss(numbers, self._scaled(numbers, params), batch)

    def gradients(self, numbers: Numbers, params: Params, batch: Batch, state: GradientState) -> tuple[Params, Tensor, GradientState]:
        """Return s times the inner program's gradients at s w'."""
        grads, loss, state = program_gradients(self.program, numbers, self._scaled(numbers, params), batch, state)
        return self._scaled(numbers, grads), loss, state

    def gradient_state(self, numbers: Numbers, params: Params) -> GradientState:
        """Return the inner program's gradient state at s w'."""
        return super().gradient_state(numbers, self._scaled(numbers, params))


@dataclass(frozen=True)
class Reparametrisation(Augmentation):
    """Options of re-parametrisation.

    Attributes:
        level: one scale for the model, one a tensor, one a weight; "any" draws the level.
        scale: closed range of the log-uniform scale s.
    """

    name: ClassVar[str] = "reparametrisation"
    level: Literal["global", "tensor", "element", "any"] = "global"
    scale: tuple[Positive, Positive] = (1e-3, 1e3)

    def settle(self, seed: int) -> "Reparametrisation":
        """Return the same with its level drawn, each as likely as the others."""
        if self.level != "any":
            return self
        place = int(Sampler("augmentation", self.name, seed).uniform("level", 0, len(_LEVELS)))
        level: Literal["global", "tensor", "element"] = ("global", "tensor", "element")[place]
        return replace(self, level=level)

    def apply(self, task: Task, seed: int) -> Task:
        """Return the task in variables w / s."""
        level, dtype = self.settle(seed).level, task.horizon.dtype
        if level == "global":
            factor = Sampler("augmentation", self.name, seed).log_uniform("scale", *self.scale)
            return wrapped(task, Reparametrised(task.program), {self.name: torch.tensor(factor, dtype=dtype)})
        numbers = {}
        low, high = map(math.log, self.scale)
        for name, param in task.init(seeds.key(0)).items():
            draw = seeds.uniform(seeds.key("augmentation", self.name, seed, name), param.shape if level == "element" else (), torch.float64)
            numbers[f"{self.name}.{name}"] = torch.exp(low + (high - low) * draw).to(dtype)
        return wrapped(task, Reparametrised(task.program, level), numbers)


def reparametrise(task: Task, seed: int, scale: tuple[float, float]) -> Task:
    """Return the task in variables w / s, one s for the whole model, log-uniform on `scale`, drawn from `seed`."""
    return Reparametrisation(scale=scale).apply(task, seed)
