"""One vectorised inner run and the curves that evaluation keeps of it.

Legend: E evaluation points, N runs of one job (rates x seeds, seeds fastest).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metaopt import inner, tasks
from metaopt.learners import Learner
from metaopt.tasks import TaskSpec

__all__ = ["Curves", "Job", "run_job"]

EVALUATIONS = 40  # points of a curve, beside the one before the first step

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """What N runs of one task did; losses are normalised, at most the task's cap.

    Attributes:
        steps: updates made at each evaluation [E], from 0 to the horizon.
        heldout: loss on the held-out examples [E, N]. [1, N] where only the last point was kept.
        train: mean training loss since the previous point [E, N]; at step 0 that of the first batch. [0, N] where only held-out losses
            were kept.
        diverged: runs that left the finite range or passed the task's cap [N].
    """

    steps: Array
    heldout: Array
    train: Array
    diverged: NDArray[np.bool_]

    def runs(self, chosen: slice) -> "Curves":
        """Return the curves of some of the runs."""
        return Curves(self.steps, self.heldout[:, chosen], self.train[:, chosen], self.diverged[chosen])

    @staticmethod
    def join(parts: Sequence["Curves"]) -> "Curves":
        """Return the runs of several curves of one task side by side."""
        heldout, train = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("heldout", "train"))
        return Curves(parts[0].steps, heldout, train, np.concatenate([part.diverged for part in parts]))

    def stored(self) -> "Curves":
        """Return the curves as the store gives them back: losses rounded to float32, so that a fresh curve and a stored one are equal."""
        heldout, train = (curve.astype(np.float32).astype(np.float64) for curve in (self.heldout, self.train))
        return Curves(self.steps, heldout, train, self.diverged)


@dataclass(frozen=True)
class Job:
    """One learner on one task with some seeds, as one inner run; pickles, and gives the same curves wherever it runs.

    Attributes:
        learner: the pair (init, advance).
        theta: its meta-parameters; with `theta_stacked`, every entry has a leading axis of one row a run.
        spec: the task; its horizon is the budget.
        seeds: one inner seed a run [N].
        device: where to run.
        evaluations: points of the curves beside the one before the first step, >= 1; the last point is the same for any number.
    """

    learner: Learner
    theta: Mapping[str, Tensor]
    spec: TaskSpec
    seeds: tuple[int, ...]
    theta_stacked: bool = False
    device: str = "cpu"
    evaluations: int = EVALUATIONS


def run_job(job: Job) -> Curves:
    """Return the curves of a job; deterministic for one device type and thread count."""
    horizon = job.spec.horizon
    task = tasks.build(job.spec).to(job.device)
    theta = {name: value.to(job.device) for name, value in job.theta.items()}
    trace = inner.run(
        job.learner,
        theta,
        [task] * len(job.seeds),
        list(job.seeds),
        budget_steps=horizon,
        eval_every=max(1, horizon // job.evaluations),
        theta_stacked=job.theta_stacked,
    )
    steps = trace.eval_steps.numpy(force=True).astype(np.float64)
    train = trace.normalised.numpy(force=True).astype(np.float64)
    ends = steps.astype(int)
    means = [train[0], *(train[a:b].mean(axis=0) for a, b in pairwise(ends))]
    return Curves(steps, trace.eval_loss.numpy(force=True).astype(np.float64), np.stack(means), trace.diverged.numpy(force=True))
