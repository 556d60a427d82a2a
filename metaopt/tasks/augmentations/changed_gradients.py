"""Changed gradients: noisy, normalised, delayed. Each acts on whatever gradient the program inside hands out."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt.tasks.augmentations.draws import normal_like
from metaopt.tasks.augmentations.norms import safe_norm
from metaopt.tasks.augmentations.wrapper import Augmentation, Count, Keyed, Positive, Wrapper, wrapped
from metaopt.tasks.sampling import Sampler
from metaopt.tasks.task import Batch, GradientState, Numbers, Params, Task

__all__ = [
    "DelayedGradients",
    "GradientNoise",
    "NormalisedGradients",
    "WithDelayedGradients",
    "WithGradientNoise",
    "WithNormalisedGradients",
]


@dataclass(frozen=True)
class WithGradientNoise(Keyed):
    """g + level rms(g) n, n ~ N(0, I) drawn at every step; rms over all weights of the model, so that no unit comes in.

    Numbers: those of `program`, and `gradient_noise` (the level). Batches: `gradient_noise.key`.
    """

    drawn_as: ClassVar[str] = "gradient_noise"

    def gradients(self, numbers: Numbers, params: Params, batch: Batch, state: GradientState) -> tuple[Params, Tensor, GradientState]:
        """Return the inner program's gradients with noise, and its loss."""
        grads, loss, state = super().gradients(numbers, params, batch, state)
        norm, _ = safe_norm(grads)
        size = numbers[self.drawn_as] * norm / math.sqrt(sum(g.numel() for g in grads.values()))
        noise = normal_like(self.key(batch), grads, 1)
        return {name: g + size * noise[name][0] for name, g in grads.items()}, loss, state


@dataclass(frozen=True)
class GradientNoise(Augmentation):
    """Options of gradient noise.

    Attributes:
        level: closed range of the log-uniform standard deviation, in units of the root mean square of the gradient.
    """

    name: ClassVar[str] = "gradient_noise"
    level: tuple[Positive, Positive] = (0.01, 1.0)

    def apply(self, task: Task, seed: int) -> Task:
        """Return the task with noise on its gradients."""
        level = Sampler("augmentation", self.name, seed).log_uniform("level", *self.level)
        return wrapped(task, WithGradientNoise(task.program), {self.name: torch.tensor(level, dtype=task.horizon.dtype)})


@dataclass(frozen=True)
class WithNormalisedGradients(Wrapper):
    """g / |g| over all weights of the model; a zero gradient stays zero."""

    def gradients(self, numbers: Numbers, params: Params, batch: Batch, state: GradientState) -> tuple[Params, Tensor, GradientState]:
        """Return the inner program's gradients divided by their norm, and its loss."""
        grads, loss, state = super().gradients(numbers, params, batch, state)
        _, divisor = safe_norm(grads)
        return {name: g / divisor for name, g in grads.items()}, loss, state


@dataclass(frozen=True)
class NormalisedGradients(Augmentation):
    """Options of normalised gradients: there are none."""

    name: ClassVar[str] = "normalised_gradients"

    def apply(self, task: Task, seed: int) -> Task:
        """Return the task with normalised gradients."""
        return wrapped(task, WithNormalisedGradients(task.program), {})


@dataclass(frozen=True)
class WithDelayedGradients(Wrapper):
    """The gradient of d steps ago, zero in the first d steps; the loss is that of now.

    A run keeps its last `most` gradients, whatever d: d is a number, and one program serves all delays.

    Numbers: those of `program`, and `delayed_gradients` (d, int64). State: `delayed_gradients.NAME` [most, ...], newest first.
    """

    most: int = 8

    def gradients(self, numbers: Numbers, params: Params, batch: Batch, state: GradientState) -> tuple[Params, Tensor, GradientState]:
        """Return the inner program's gradients of d steps ago, its loss of now, and the state with its gradients of now."""
        grads, loss, state = super().gradients(numbers, params, batch, state)
        place = numbers["delayed_gradients"].reshape(1) - 1
        late, kept = {}, dict(state)
        for name, g in grads.items():
            past = state[f"delayed_gradients.{name}"]
            late[name] = past.index_select(0, place)[0]
            kept[f"delayed_gradients.{name}"] = torch.cat([g.unsqueeze(0), past[:-1]])
        return late, loss, kept

    def gradient_state(self, numbers: Numbers, params: Params) -> GradientState:
        """Return the inner program's gradient state and zeros for the gradients of before the run."""
        past = {f"delayed_gradients.{name}": param.new_zeros((self.most, *param.shape)) for name, param in params.items()}
        return {**super().gradient_state(numbers, params), **past}


@dataclass(frozen=True)
class DelayedGradients(Augmentation):
    """Options of delayed gradients.

    Attributes:
        steps: closed range of the log-uniform delay; a run keeps as many gradients as its upper end.
    """

    name: ClassVar[str] = "delayed_gradients"
    steps: tuple[Count, Count] = (1, 8)

    def apply(self, task: Task, seed: int) -> Task:
        """Return the task with delayed gradients."""
        delay = Sampler("augmentation", self.name, seed).log_integer("steps", *self.steps)
        return wrapped(task, WithDelayedGradients(task.program, self.steps[1]), {self.name: torch.tensor(delay, dtype=torch.int64)})
