"""One inner step of a stack of particles: the program that every runner repeats.

Legend: N particles (stacked on axis 0 of theta, numbers, carry and keys). Nothing in a step talks to the host.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from metaopt import seeds
from metaopt.learners.learner import Carry, Learner, Theta
from metaopt.memory import keep_freed_memory
from metaopt.tasks.task import Program, Task

__all__ = ["Step", "evaluation_step", "fresh_carries", "training_step"]

# Keys of one run, below its seed.
_INIT, _BATCH, _HELDOUT = 0, 1, 2

Step = Callable[..., Any]


def _vmapped(one: Step, theta_stacked: bool, compiled: bool) -> Step:
    keep_freed_memory()
    # (theta, numbers, shared, key, carry, t): a data set is shared, everything else is per particle.
    step = vmap(one, in_dims=(0 if theta_stacked else None, 0, None, 0, 0, 0))
    return torch.compile(step, fullgraph=True, dynamic=False) if compiled else step


@functools.cache
def training_step(learner: Learner, program: Program, theta_stacked: bool, compiled: bool) -> Step:
    """Return (theta, numbers, shared, key [N], carry, t [N]) -> (carry, raw loss [N], normalised loss [N])."""

    def one(theta: Theta, numbers: Any, shared: Any, key: Tensor, carry: Carry, t: Tensor) -> tuple[Carry, Tensor, Tensor]:
        task = Task(program, numbers, shared)
        carry, record = learner.advance(theta, task, carry, task.batch(seeds.fold_in(key, _BATCH), t))
        return carry, record.loss, task.normalise(record.loss)

    return _vmapped(one, theta_stacked, compiled)


@functools.cache
def evaluation_step(learner: Learner, program: Program, theta_stacked: bool, compiled: bool) -> Step:
    """Return the same arguments -> (raw, normalised) held-out loss [N]: an advance whose carry is thrown away."""

    def one(theta: Theta, numbers: Any, shared: Any, key: Tensor, carry: Carry, t: Tensor) -> tuple[Tensor, Tensor]:
        task = Task(program, numbers, shared)
        _, record = learner.advance(theta, task, carry, task.heldout(seeds.fold_in(key, _HELDOUT), t))
        return record.loss, task.normalise(record.loss)

    return _vmapped(one, theta_stacked, compiled)


def fresh_carries(learner: Learner, theta: Theta, tasks: Task, keys: Tensor, theta_stacked: bool) -> Carry:
    """Return the stacked carries of fresh inner runs: one for each key [N] of the stacked tasks."""

    def one(theta: Theta, numbers: Any, shared: Any, key: Tensor) -> Carry:
        return learner.init(theta, Task(tasks.program, numbers, shared), seeds.fold_in(key, _INIT))

    return vmap(one, in_dims=(0 if theta_stacked else None, 0, None, 0))(theta, tasks.numbers, tasks.shared, keys)
