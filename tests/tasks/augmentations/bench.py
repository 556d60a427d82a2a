"""Tasks that the tests of augmentations share."""

from dataclasses import replace

import torch

from metaopt import tasks
from metaopt.tasks.augmentations import Augmentation
from metaopt.tasks.families.quadratic import Quadratic
from metaopt.tasks.task import Task


def bowl(noise: str = "minimum", horizon: int = 40, seed: int = 0) -> Task:
    """Return an 8 x 4 quadratic bowl in float64."""
    family = tasks.get("quadratic")
    template = {"minimum": "8x4-minimum", "gradient": "10x1-gradient", "none": "10x1-none"}[noise]
    return family.build(family.sample(template, seed, (horizon, horizon))).to(dtype=torch.float64)


def digits(template: str = "16-tanh-b32", dtype: torch.dtype = torch.float64) -> Task:
    """Return a small network on digits."""
    family = tasks.get("digits_mlp")
    return family.build(family.sample(template, 0, (40, 40))).to(dtype=dtype)


def strength(task: Task, augmentation: Augmentation, value: float | int) -> Task:
    """Return the augmented task with its one strength set by hand."""
    changed = augmentation.apply(task, 0)
    number = changed.numbers[augmentation.name]
    return replace(changed, numbers={**changed.numbers, augmentation.name: torch.full_like(number, value)})


def plain_bowl(rows: int, columns: int, hessian: torch.Tensor) -> Task:
    """Return 0.5 x' H x without noise, float64."""
    d = rows * columns
    zeros = torch.zeros(d, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    numbers = {"hessian": hessian, "minimum": zeros, "noise": 0 * one, "initial_loss": one, "horizon": 10 * one}
    return Task(Quadratic(rows, columns, "none"), numbers, {})
