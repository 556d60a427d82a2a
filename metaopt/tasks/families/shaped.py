"""Families whose templates are shapes from a space: what is left to say is the program of a shape and the constants of its loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from metaopt.errors import TaskError
from metaopt.tasks.sampling import Sampler, Shape, split_of
from metaopt.tasks.task import Program, Task, TaskSpec

__all__ = ["ShapedFamily", "nothing"]


P = TypeVar("P", bound=Program)


def nothing() -> dict[str, str]:
    """Return no marks."""
    return {}


@dataclass(frozen=True)
class ShapedFamily(Generic[P]):
    """Programs of the shapes in `grid`; the initial scale and the horizon vary inside a template.

    Attributes:
        name: registry name.
        grid: split -> {template: shape}, as `draw_templates` returns it.
        program: shape -> program; equal shapes give equal programs.
        constants: program -> further numbers of all its tasks, such as the floor and the reference of the loss.
        init_scale: closed range of the log-uniform initial scale.
        offers: see `Family`.
        marks: further values of every spec: what a task depends on beside the code, such as the digest of a text.
    """

    name: str
    grid: Mapping[str, Mapping[str, Shape]]
    program: Callable[[Shape], P]
    constants: Callable[[P], Mapping[str, float]]
    init_scale: tuple[float, float] = (0.5, 2.0)
    offers: tuple[str, ...] = ("stream", "model")
    marks: Callable[[], Mapping[str, str]] = nothing

    def templates(self, split: str) -> tuple[str, ...]:
        """Return the templates of a split."""
        return tuple(self.grid.get(split, {}))

    def sample(self, template: str, seed: int, horizon: tuple[int, int]) -> TaskSpec:
        """Return a spec with a log-uniform initial scale and horizon."""
        draw = Sampler(self.name, template, seed)
        values: dict[str, float | int | str] = {"init_scale": draw.log_uniform("init_scale", *self.init_scale), **self.marks()}
        return TaskSpec(self.name, template, split_of(self, template), values, draw.log_integer("horizon", *horizon))

    def build(self, spec: TaskSpec) -> Task:
        """Return the task of a spec.

        Raises:
            TaskError: the split has no such template.
        """
        shape = self.grid.get(spec.split, {}).get(spec.template)
        if shape is None:
            known = ", ".join(self.templates(spec.split)) or "none"
            raise TaskError(f"{self.name} has no template {spec.template!r} in {spec.split}; it has {known}")
        program = self.program(shape)
        values = {"init_scale": float(spec.values["init_scale"]), **self.constants(program), "horizon": float(spec.horizon)}
        return Task(program, {name: torch.tensor(value) for name, value in values.items()}, program.shared())
