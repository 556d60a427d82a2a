"""One inner step of a stack of particles: the program that every runner repeats.

Legend: N particles (stacked on axis 0 of theta, numbers, carry and keys), S steps. Nothing in a step talks to the host.

Batches are drawn outside the compiled step, many steps at a time: 64-bit counters wrap around, which compiled C++ leaves undefined.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from metaopt import seeds
from metaopt.inner.looped import is_vectorised, over_particles
from metaopt.learners.learner import Carry, Learner
from metaopt.learners.update_rules import Theta
from metaopt.memory import keep_freed_memory
from metaopt.tasks.task import Batch, Numbers, Program, Task

__all__ = ["BATCHES_AHEAD", "evaluation_step", "fresh_carries", "heldout_batch", "training_batches", "training_step"]

BATCHES_AHEAD = 32  # steps whose batches are drawn in one go; bounds the memory that they take

_BUCKETS = itertools.count()

# Keys of one run, below its seed.
_INIT, _BATCH, _HELDOUT = 0, 1, 2


def _step(learner: Learner, one: Callable[..., Any], theta_stacked: bool, compiled: bool) -> Callable[..., Any]:
    keep_freed_memory()
    # (theta, numbers, shared, carry, batch): a data set is shared, everything else is per particle.
    step = over_particles(learner, one, (0 if theta_stacked else None, 0, None, 0, 0))
    return torch.compile(_with_own_code(step), fullgraph=True, dynamic=False) if compiled and is_vectorised(learner) else step


def _with_own_code(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a code object that no other has.

    torch's compiler files compiled versions under the code object, and refuses a ninth; all vmapped functions share one. With its own, the
    step of a bucket is compiled once, however many buckets there are, and its calls look through no others.
    """

    def bucket(*arguments: Any) -> Any:
        return step(*arguments)

    bucket.__code__ = bucket.__code__.replace(co_name=f"bucket_{next(_BUCKETS)}")
    return bucket


@functools.cache
def training_step(learner: Learner, program: Program, theta_stacked: bool, compiled: bool) -> Callable[..., tuple[Carry, Tensor, Tensor]]:
    """Return (theta, numbers, shared, carry, batch) -> (carry, raw loss [N], normalised loss [N])."""

    def one(theta: Theta, numbers: Numbers, shared: Batch, carry: Carry, batch: Batch) -> tuple[Carry, Tensor, Tensor]:
        task = Task(program, numbers, shared)
        carry, record = learner.advance(theta, task, carry, batch)
        return carry, record.loss, task.normalise(record.loss)

    return _step(learner, one, theta_stacked, compiled)


@functools.cache
def evaluation_step(learner: Learner, program: Program, theta_stacked: bool, compiled: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the same arguments -> (raw, normalised) loss [N]: an advance whose carry is thrown away."""

    def one(theta: Theta, numbers: Numbers, shared: Batch, carry: Carry, batch: Batch) -> tuple[Tensor, Tensor]:
        task = Task(program, numbers, shared)
        _, record = learner.advance(theta, task, carry, batch)
        return record.loss, task.normalise(record.loss)

    return _step(learner, one, theta_stacked, compiled)


def training_batches(tasks: Task, keys: Tensor, clocks: Tensor, steps: int) -> Batch:
    """Return the batches [S, N, ...] of `steps` inner steps from each particle's clock [N] on."""

    def one(numbers: Numbers, shared: Batch, key: Tensor, t: Tensor) -> Batch:
        return Task(tasks.program, numbers, shared).batch(seeds.fold_in(key, _BATCH), t)

    over_particles = vmap(one, in_dims=(0, None, 0, 0))
    ahead = clocks + torch.arange(steps, device=clocks.device).unsqueeze(1)
    return vmap(over_particles, in_dims=(None, None, None, 0))(tasks.numbers, tasks.shared, keys, ahead)


def heldout_batch(tasks: Task, keys: Tensor, clocks: Tensor) -> Batch:
    """Return a held-out batch for each particle [N, ...]."""

    def one(numbers: Numbers, shared: Batch, key: Tensor, t: Tensor) -> Batch:
        return Task(tasks.program, numbers, shared).heldout(seeds.fold_in(key, _HELDOUT), t)

    return vmap(one, in_dims=(0, None, 0, 0))(tasks.numbers, tasks.shared, keys, clocks)


def fresh_carries(learner: Learner, theta: Theta, tasks: Task, keys: Tensor, theta_stacked: bool) -> Carry:
    """Return the stacked carries of fresh inner runs: one for each key [N] of the stacked tasks.

    A learner that is not vectorised has `looped.Rows` of them.
    """

    def one(theta: Theta, numbers: Numbers, shared: Batch, key: Tensor) -> Carry:
        return learner.init(theta, Task(tasks.program, numbers, shared), seeds.fold_in(key, _INIT))

    fresh = over_particles(learner, one, (0 if theta_stacked else None, 0, None, 0))(theta, tasks.numbers, tasks.shared, keys)
    if not is_vectorised(learner):
        return fresh  # type: ignore[no-any-return]
    # What is the same for all comes out as one row seen N times, with stride 0: a compiled step would be compiled again for the next carry.
    carry: Carry = tree_map(lambda rows: rows.clone(memory_format=torch.contiguous_format), fresh)
    return carry
