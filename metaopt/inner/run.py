"""Run learners on tasks from initialisation to a budget.

Legend: T inner steps, N particles, E evaluations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt.errors import TaskError
from metaopt.inner.step import BATCHES_AHEAD, evaluation_step, fresh_carries, heldout_batch, training_batches, training_step
from metaopt.learners.learner import Carry, Learner
from metaopt.learners.update_rules import Theta
from metaopt.tasks.task import Task, stack_tasks

__all__ = ["Trace", "run"]


@dataclass(frozen=True)
class Trace:
    """What N inner runs left behind.

    Attributes:
        loss: raw training loss before each update [T, N]; non-finite values are kept.
        normalised: the same on the common scale, at most the task's cap [T, N].
        eval_steps: updates made before each evaluation [E].
        eval_loss: normalised held-out loss [E, N].
        eval_raw: raw held-out loss [E, N].
        diverged: whether a loss was non-finite or at the cap [N], bool.
        carry: the learner's carry after the last step, stacked; of a learner that is not vectorised, a list of carries.
    """

    loss: Tensor
    normalised: Tensor
    eval_steps: Tensor
    eval_loss: Tensor
    eval_raw: Tensor
    diverged: Tensor
    carry: Carry


def run(
    learner: Learner,
    theta: Theta,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    budget_steps: int,
    eval_every: int = 0,
    compile: bool = False,
    theta_stacked: bool = False,
) -> Trace:
    """Return the trace of one inner run for each task, all in one vectorised program.

    Args:
        learner: the pair `init` / `advance`.
        theta: its meta-parameters; stacked over particles [N, ...] if `theta_stacked` (a perturbed copy or a swept rate each).
        tasks: N tasks of one program. Equal entries are fine.
        seeds: N seeds, 63-bit; a run is a pure function of (theta, task, seed).
        budget_steps: inner steps T, >= 1.
        eval_every: evaluate on held-out data before every this many steps, and after the last; 0 means never.
        compile: compile the step (pays off for long runs of one shape).
        theta_stacked: see `theta`.

    Raises:
        TaskError: the tasks differ in program, or the counts disagree.

    Differentiable in theta where the learner is.
    """
    if len(tasks) != len(seeds):
        raise TaskError(f"run needs one seed a task, got {len(tasks)} tasks and {len(seeds)} seeds")
    stacked = stack_tasks(tasks)
    device = stacked.horizon.device
    keys = torch.tensor(list(seeds), dtype=torch.int64, device=device)
    step = training_step(learner, stacked.program, theta_stacked, compile)
    evaluate = evaluation_step(learner, stacked.program, theta_stacked, compile)
    carry = fresh_carries(learner, theta, stacked, keys, theta_stacked)
    losses: list[Tensor] = []
    normalised: list[Tensor] = []
    recent, evals = [], []
    for t in range(budget_steps + 1):
        clock = torch.full_like(keys, t)
        if eval_every and (t % eval_every == 0 or t == budget_steps):
            evals.append((t, *evaluate(theta, stacked.numbers, stacked.shared, carry, heldout_batch(stacked, keys, clock))))
        if t < budget_steps:
            if t % BATCHES_AHEAD == 0:
                ahead = training_batches(stacked, keys, clock, min(BATCHES_AHEAD, budget_steps - t))
            batch = {name: value[t % BATCHES_AHEAD] for name, value in ahead.items()}
            carry, raw, scaled = step(theta, stacked.numbers, stacked.shared, carry, batch)
            recent.append((raw, scaled))
            if len(recent) == BATCHES_AHEAD or t + 1 == budget_steps:
                # In blocks: a small tensor a step, if it stays, splits a large buffer that was freed, and the next step needs another one.
                for kept, values in zip((losses, normalised), zip(*recent, strict=True), strict=True):
                    kept.append(torch.stack(values))
                recent.clear()
    loss_TN, normalised_TN = torch.cat(losses), torch.cat(normalised)
    empty = loss_TN.new_zeros((0, len(tasks)))
    return Trace(
        loss=loss_TN,
        normalised=normalised_TN,
        eval_steps=torch.tensor([t for t, *_ in evals], dtype=torch.int64),
        eval_loss=torch.stack([scaled for *_, scaled in evals]) if evals else empty,
        eval_raw=torch.stack([raw for _, raw, _ in evals]) if evals else empty,
        diverged=(~torch.isfinite(loss_TN) | (normalised_TN >= stacked.program.cap)).any(0),
        carry=carry,
    )
