"""Families whose templates are shapes from a space: what is left to say is the program of a shape and the constants of its loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from metaopt.errors import TaskError
from metaopt.tasks.families.shape_axes import moved, parted
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

    def shape(self, spec: TaskSpec) -> Shape:
        """Return the shape of a spec's template, after the axes that follow the name of a template in the grid: `NAME+width=192+batch=96`.

        Raises:
            TaskError: the split has no such template, or the family no such axis or value.
        """
        base, axes = parted(self.name, spec.template)
        shape = self.grid.get(spec.split, {}).get(base)
        if shape is None:
            known = ", ".join(self.templates(spec.split)) or "none"
            raise TaskError(f"{self.name} has no template {base!r} in {spec.split}; it has {known}")
        if axes and "model" not in self.offers:
            raise TaskError(f"{self.name} has no axis of a model to change, got {spec.template!r}; change its numbers instead")
        for axis, value in axes.items():
            shape = moved(self.name, shape, axis, value)
        return shape

    def program_of(self, spec: TaskSpec) -> P:
        """Return the program of a spec's shape, which is no shape of meta-training or of its validation unless it is the template's own.

        Raises:
            TaskError: see `shape`; or a changed shape is that of another template of `meta_train` or `meta_valid`, or its batch is larger
                than the data set.
        """
        program = self.program(self.shape(spec))
        _, axes = parted(self.name, spec.template)
        if not axes:
            return program
        for split in ("meta_train", "meta_valid"):
            for template, shape in self.grid.get(split, {}).items():
                if self.program(shape) == program:
                    raise TaskError(f"{self.name} template {spec.template!r} is {template!r} of {split}; choose another level")
        if "batch" in axes and "train_x" in (data := program.shared()) and int(axes["batch"]) > len(data["train_x"]):
            raise TaskError(f"{self.name} batch must be at most its {len(data['train_x'])} training examples, got {axes['batch']}")
        return program

    def build(self, spec: TaskSpec) -> Task:
        """Return the task of a spec.

        Raises:
            TaskError: see `program_of`.
        """
        program = self.program_of(spec)
        values = {"init_scale": float(spec.values["init_scale"]), **self.constants(program), "horizon": float(spec.horizon)}
        return Task(program, {name: torch.tensor(value) for name, value in values.items()}, program.shared())
