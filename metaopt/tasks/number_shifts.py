"""Shifts that change a task's numbers and wrap its program: values of the spec, `shift.NAME`, applied to the task that the family built.

All levels of a shift have one program, so that their runs are vectorised together.
"""

from collections.abc import Mapping

import torch

from metaopt.tasks.augmentations.changed_gradients import WithGradientNoise
from metaopt.tasks.augmentations.precision import Bfloat16
from metaopt.tasks.augmentations.reparametrisation import Reparametrised
from metaopt.tasks.augmentations.scaled_loss import WithScaledLoss
from metaopt.tasks.augmentations.wrapper import wrapped
from metaopt.tasks.task import Task

__all__ = ["PREFIX", "apply_shifts", "is_shifted"]

PREFIX = "shift."


def is_shifted(values: Mapping[str, object]) -> bool:
    """Return whether the values of a spec hold a shift."""
    return any(name.startswith(PREFIX) for name in values)


def apply_shifts(task: Task, values: Mapping[str, float | int | str]) -> Task:
    """Return the task after the shifts among the values of its spec; itself if there is none that wraps the program.

    They wrap in the order of the augmentations, the first one innermost: what computes the loss, then what changes the variables, then what
    changes the gradient in those variables; the units of the loss come last, so that no rounding sees them.

    Raises:
        TaskError: bfloat16 for a program with gradients of its own.
    """
    level = {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}
    if level.get("precision") == "bfloat16":
        task = Bfloat16().apply(task, 0)
    for axis, wrapper, number in (
        ("parameter_scale", Reparametrised, "reparametrisation"),
        ("gradient_noise", WithGradientNoise, "gradient_noise"),
        ("loss_scale", WithScaledLoss, "loss_scale"),
    ):
        if axis in level:
            task = wrapped(task, wrapper(task.program), {number: torch.tensor(float(level[axis]), dtype=task.horizon.dtype)})
    return task
