"""One learner on several tasks of one program, as one inner run.

Legend: E evaluation points, G tasks, S inner seeds of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from metaopt import inner, tasks
from metaopt.baselines.runs import EVALUATIONS, Curves
from metaopt.learners import Learner
from metaopt.tasks import TaskSpec

__all__ = ["GroupJob", "run_group"]


@dataclass(frozen=True)
class GroupJob:
    """One learner on G tasks with S seeds each; pickles, and gives the same curves wherever it runs.

    Attributes:
        learner: the pair (init, advance).
        theta: its meta-parameters, the same for all.
        specs: tasks of one program and one horizon [G].
        seeds: inner seeds of each task [G][S].
        device: where to run.
    """

    learner: Learner
    theta: Mapping[str, Tensor]
    specs: tuple[TaskSpec, ...]
    seeds: tuple[tuple[int, ...], ...]
    device: str = "cpu"


def run_group(job: GroupJob) -> Curves:
    """Return the curves of all runs side by side [E, G S], seeds fastest; deterministic for one device type and thread count.

    A group of one task gives the bytes of `baselines.run_job`; in a larger one a task's curves are the same to rounding.

    Raises:
        TaskError: the tasks differ in program.
    """
    horizon = job.specs[0].horizon
    built = [tasks.build(spec).to(job.device) for spec in job.specs]
    trace = inner.run(
        job.learner,
        {name: value.to(job.device) for name, value in job.theta.items()},
        [task for task, seeds in zip(built, job.seeds, strict=True) for _ in seeds],
        [seed for seeds in job.seeds for seed in seeds],
        budget_steps=horizon,
        eval_every=max(1, horizon // EVALUATIONS),
    )
    steps = trace.eval_steps.numpy(force=True).astype(np.float64)
    train = trace.normalised.numpy(force=True).astype(np.float64)
    means = [train[0], *(train[a:b].mean(axis=0) for a, b in pairwise(steps.astype(int)))]
    heldout = trace.eval_loss.numpy(force=True).astype(np.float64)
    return Curves(steps, heldout, np.stack(means), trace.diverged.numpy(force=True))
