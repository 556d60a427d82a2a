"""What all augmentations are made of: options that a config sets, and a program around a program.

An augmentation has *static* choices, which change the program (precision, number of pairs, level), and *strengths*, which are tensors in
the task's `numbers` (a scale, a fraction, a delay). `settle` draws the static ones, `apply` the strengths.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le
from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.task import (
    Batch,
    GradientState,
    Numbers,
    Params,
    Program,
    Task,
    program_gradient_state,
    program_gradients,
)

__all__ = ["Augmentation", "Count", "Keyed", "Positive", "Probability", "Share", "Wrapper", "wrapped"]

Probability = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Gt(0), Le(1)]
Count = Annotated[int, Ge(1), Le(10**6)]


@dataclass(frozen=True)
class Augmentation(ABC):
    """A way to change tasks, as data; the fields of a subclass are the options of a config.

    Attributes:
        name: key of its section in a config.
        probability: how often a source of tasks chooses it.
    """

    name: ClassVar[str]
    probability: Probability = 1.0

    def settle(self, seed: int) -> "Augmentation":
        """Return the same with its static choices drawn from `seed`; itself if it has none."""
        return self

    def fits(self, task: Task) -> bool:
        """Return whether it means anything for tasks of this program."""
        return True

    @abstractmethod
    def apply(self, task: Task, seed: int) -> Task:
        """Return the changed task; strengths, and static choices that are still open, are drawn from `seed`."""


@dataclass(frozen=True)
class Wrapper:
    """A program that behaves as the one inside; subclasses change a part of it."""

    program: Program

    @property
    def cap(self) -> float:
        """The inner program's cap."""
        return self.program.cap

    @property
    def step_scales(self) -> dict[str, float]:
        """The inner program's step scales, {} if it has none."""
        scales: dict[str, float] = getattr(self.program, "step_scales", {})
        return scales

    @property
    def embeddings(self) -> frozenset[str]:
        """The inner program's embeddings, none if it has none."""
        names: frozenset[str] = getattr(self.program, "embeddings", frozenset())
        return names

    def shared(self) -> Batch:
        """Return the inner program's data."""
        return self.program.shared()

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return the inner program's fresh weights."""
        return self.program.init(numbers, key)

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the inner program's batch."""
        return self.program.batch(numbers, shared, key, step)

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the inner program's held-out batch."""
        return self.program.heldout(numbers, shared, key, step)

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the inner program's loss."""
        return self.program.loss(numbers, params, batch)

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the inner program's normalised loss."""
        return self.program.normalise(numbers, raw)

    def gradients(self, numbers: Numbers, params: Params, batch: Batch, state: GradientState) -> tuple[Params, Tensor, GradientState]:
        """Return the inner program's gradients, loss and state."""
        return program_gradients(self.program, numbers, params, batch, state)

    def gradient_state(self, numbers: Numbers, params: Params) -> GradientState:
        """Return the inner program's gradient state."""
        return program_gradient_state(self.program, numbers, params)


@dataclass(frozen=True)
class Keyed(Wrapper):
    """A wrapper that draws random numbers at every step.

    Batches, held-out ones too, carry a key, drawn outside compiled code; `draws` expands it inside.
    """

    drawn_as: ClassVar[str]

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the inner program's batch and the key of the step."""
        return {**super().batch(numbers, shared, key, step), f"{self.drawn_as}.key": self._draw(key, step)}

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the inner program's held-out batch and the key of the step."""
        return {**super().heldout(numbers, shared, key, step), f"{self.drawn_as}.key": self._draw(key, step)}

    def key(self, batch: Batch) -> Tensor:
        """Return the key of the step [int64, 0-d]."""
        return batch[f"{self.drawn_as}.key"]

    def _draw(self, key: Tensor, step: Tensor) -> Tensor:
        stream = (1 << 40) + (seeds.stable_hash("augmentation", self.drawn_as) >> 33)  # far from steps, which programs fold into the key
        return seeds.fold_in(seeds.fold_in(key, stream), step)


def wrapped(task: Task, program: Wrapper, numbers: Numbers) -> Task:
    """Return the task with its program wrapped and the wrapper's numbers added.

    Raises:
        TaskError: a number of that name is there: the same augmentation twice.
    """
    if twice := sorted(task.numbers.keys() & numbers.keys()):
        raise TaskError(f"the task is augmented by {twice[0].partition('.')[0]} already; apply each augmentation once")
    return replace(task, program=program, numbers={**task.numbers, **numbers})
