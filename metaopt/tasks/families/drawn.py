"""Families of bare problems: what is left to say is the program of a template and the numbers that a task's seed stands for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.sampling import Sampler, split_of
from metaopt.tasks.task import Numbers, Program, Task, TaskSpec

__all__ = ["DrawnFamily"]

P = TypeVar("P", bound=Program)


@dataclass(frozen=True)
class DrawnFamily(Generic[P]):
    """One program a template; the problem itself, the initial scale and the horizon vary inside it. There is no stream and no model.

    Attributes:
        name: registry name.
        grid: split -> {template: program}.
        numbers: (program, key) -> the numbers of a problem, drawn from the key, in any floating dtype.
        init_scale: closed range of the log-uniform initial scale.
        offers: see `Family`.
    """

    name: str
    grid: Mapping[str, Mapping[str, P]]
    numbers: Callable[[P, Tensor], Numbers]
    init_scale: tuple[float, float]
    offers: tuple[str, ...] = ()

    def templates(self, split: str) -> tuple[str, ...]:
        """Return the templates of a split."""
        return tuple(self.grid.get(split, {}))

    def sample(self, template: str, seed: int, horizon: tuple[int, int]) -> TaskSpec:
        """Return a spec with a log-uniform initial scale and horizon; its seed stands for the problem."""
        draw = Sampler(self.name, template, seed)
        values = {"init_scale": draw.log_uniform("init_scale", *self.init_scale), "seed": seed}
        return TaskSpec(self.name, template, split_of(self, template), values, draw.log_integer("horizon", *horizon))

    def build(self, spec: TaskSpec) -> Task:
        """Return the task of a spec.

        Raises:
            TaskError: the split has no such template.
        """
        program = self.grid.get(spec.split, {}).get(spec.template)
        if program is None:
            known = ", ".join(self.templates(spec.split)) or "none"
            raise TaskError(f"{self.name} has no template {spec.template!r} in {spec.split}; it has {known}")
        numbers = self.numbers(program, seeds.key(self.name, spec.template, spec.values["seed"]))
        fixed = {"init_scale": float(spec.values["init_scale"]), "horizon": float(spec.horizon)}
        return Task(program, {name: value.float() for name, value in numbers.items()} | {k: torch.tensor(v) for k, v in fixed.items()}, {})
