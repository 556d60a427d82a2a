"""What one inner run works on: a frozen spec, and the task that a family builds from it.

Everything static about a task (shapes, activation, batch size) is its program; everything that varies between tasks of one shape is a
tensor in `numbers`. Tasks with equal programs therefore stack, and one compiled step serves a whole bucket of them.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from metaopt.errors import TaskError

__all__ = [
    "SPLITS",
    "Batch",
    "Family",
    "GradientState",
    "Numbers",
    "Params",
    "Program",
    "Task",
    "TaskSpec",
    "program_gradient_state",
    "program_gradients",
    "stack_tasks",
]

SPLITS = ("meta_train", "meta_valid", "meta_test")

Params = dict[str, Tensor]
Batch = dict[str, Tensor]
Numbers = dict[str, Tensor]
GradientState = dict[str, Tensor]


@dataclass(frozen=True)
class TaskSpec:
    """A task as data: serialisable, hashed by content, never changed.

    Attributes:
        family: registry name of the family that builds it.
        template: the family's static shape; it decides the split.
        split: one of `SPLITS`.
        values: everything that was sampled, JSON scalars.
        horizon: inner steps of one run, >= 1.
    """

    family: str
    template: str
    split: str
    values: Mapping[str, float | int | str] = field(hash=False)
    horizon: int

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise TaskError(f"task split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if self.horizon < 1:
            raise TaskError(f"task horizon must be >= 1, got {self.horizon}")

    def to_json(self) -> str:
        """Return the canonical JSON text (sorted keys, no spaces): equal specs give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "TaskSpec":
        """Return the spec that `to_json` wrote."""
        return TaskSpec(**json.loads(text))

    @property
    def hash(self) -> str:
        """Sixteen hex digits of the spec's content."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()


class Program(Protocol):
    """The static part of a task: pure functions of tensors; hashable, equal programs share compiled code.

    `shared` holds tensors that all tasks of the program read (a data set), `numbers` those of one task, without a batch dimension.

    Optional, for programs whose learners see something else than the gradient of the loss (noisy, delayed, ...):
    `gradients(numbers, params, batch, state) -> (grads, loss, state)`, differentiable where the loss is, and
    `gradient_state(numbers, params)`, the tensors that it carries from step to step. See `metaopt.tasks.augmentations`.

    Optional too, properties about parameters by name: `step_scales` (dict of float), a factor of the step size, as maximal update
    parametrisation asks for; `embeddings` (frozenset), matrices whose rows are looked up, which some rules treat as vectors.
    """

    def __hash__(self) -> int: ...

    @property
    def cap(self) -> float:
        """Largest normalised loss; a run that passes it has diverged."""

    def shared(self) -> Batch:
        """Return the tensors that every task of this program reads (a data set), on the CPU in float32."""

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return fresh inner parameters."""

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the training batch of inner step `step`."""

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return an evaluation batch, from examples that training never sees where the task has any."""

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the raw loss, a scalar."""

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the loss on the common scale: about 1 at initialisation, about 0 when solved."""


def program_gradients(
    program: Program, numbers: Numbers, params: Params, batch: Batch, state: GradientState
) -> tuple[Params, Tensor, GradientState]:
    """Return the program's gradients, loss and next state: its own `gradients` if it has any, else the exact ones of its loss."""
    own: Callable[..., tuple[Params, Tensor, GradientState]] | None = getattr(program, "gradients", None)
    if own is not None:
        return own(numbers, params, batch, state)
    grads, loss = torch.func.grad_and_value(lambda p: program.loss(numbers, p, batch))(params)
    return grads, loss, state


def program_gradient_state(program: Program, numbers: Numbers, params: Params) -> GradientState:
    """Return the program's own `gradient_state` if it has one, else {}."""
    own: Callable[[Numbers, Params], GradientState] | None = getattr(program, "gradient_state", None)
    return {} if own is None else own(numbers, params)


@dataclass
class Task:
    """A program with its tensors; a stack of tasks has a leading axis on every entry of `numbers`.

    `numbers["horizon"]` is the number of inner steps of a run (float, so that schedules divide by it).
    """

    program: Program
    numbers: Numbers
    shared: Batch

    @property
    def horizon(self) -> Tensor:
        """Inner steps of one run."""
        return self.numbers["horizon"]

    @property
    def step_scales(self) -> Mapping[str, float]:
        """Factors of the step size by parameter name; one that is not there has 1."""
        scales: Mapping[str, float] = getattr(self.program, "step_scales", {})
        return scales

    @property
    def embeddings(self) -> frozenset[str]:
        """Names of parameters whose rows are looked up."""
        names: frozenset[str] = getattr(self.program, "embeddings", frozenset())
        return names

    def init(self, key: Tensor) -> Params:
        """Return fresh inner parameters; consumes the key only."""
        return self.program.init(self.numbers, key)

    def batch(self, key: Tensor, step: Tensor) -> Batch:
        """Return the training batch of one inner step: a pure function of (key, step)."""
        return self.program.batch(self.numbers, self.shared, key, step)

    def heldout(self, key: Tensor, step: Tensor) -> Batch:
        """Return an evaluation batch: a pure function of (key, step)."""
        return self.program.heldout(self.numbers, self.shared, key, step)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Return the raw loss, a differentiable scalar."""
        return self.program.loss(self.numbers, params, batch)

    def gradients(self, params: Params, batch: Batch, state: GradientState) -> tuple[Params, Tensor, GradientState]:
        """Return what learners get as the gradient of the loss [per parameter], the raw loss before the step, and the next `state`."""
        return program_gradients(self.program, self.numbers, params, batch, state)

    def gradient_state(self, params: Params) -> GradientState:
        """Return what the first call of `gradients` in a run needs; mostly {}."""
        return program_gradient_state(self.program, self.numbers, params)

    def normalise(self, raw: Tensor) -> Tensor:
        """Return the normalised loss, at most `program.cap`; a non-finite loss becomes the cap (callers count it)."""
        scaled = self.program.normalise(self.numbers, raw)
        return torch.where(torch.isfinite(scaled), scaled.clamp(max=self.program.cap), self.program.cap)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Task":
        """Return the task with its tensors on `device`, floating ones in `dtype`."""

        def move(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {k: v.to(device=device, dtype=dtype if v.is_floating_point() else None) for k, v in tensors.items()}

        return replace(self, numbers=move(self.numbers), shared=move(self.shared))


def stack_tasks(tasks: Sequence[Task]) -> Task:
    """Return tasks of one program as one stacked task.

    Raises:
        TaskError: no tasks, or their programs differ (another bucket).
    """
    if not tasks:
        raise TaskError("tasks must hold at least one task, got none")
    first = tasks[0]
    for task in tasks[1:]:
        if task.program != first.program:
            raise TaskError(f"tasks of one stack must share a program, got {first.program} and {task.program}")
    return Task(first.program, {k: torch.stack([t.numbers[k] for t in tasks]) for k in first.numbers}, first.shared)


class Family(Protocol):
    """A distribution over tasks. Each template has one static shape and belongs to exactly one split."""

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def offers(self) -> tuple[str, ...]:
        """What learners that need more than a gradient find here: "stream", "model", both or neither."""

    def templates(self, split: str) -> tuple[str, ...]:
        """Return the templates of a split."""

    def sample(self, template: str, seed: int, horizon: tuple[int, int]) -> TaskSpec:
        """Return a spec; its horizon is log-uniform on the closed range."""

    def build(self, spec: TaskSpec) -> Task:
        """Return the task of a spec: CPU, float32, the same tensors every time."""
