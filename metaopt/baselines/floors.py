"""What tuned Adam reaches on the templates of a family: the measurement behind `metaopt.tasks.floors`."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metaopt import inner, learners
from metaopt.baselines.catalogue import SCHEDULE
from metaopt.tasks.task import Family

__all__ = ["FLOOR_RATES", "FLOOR_STEPS", "Reached", "floor_of", "reached"]

FLOOR_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FLOOR_STEPS = 400
_TASKS = 2  # of each template: each has an initial scale and weights of its own


@dataclass(frozen=True)
class Reached:
    """Raw losses on one template, means over its tasks, at the rate with the lowest final held-out loss.

    Attributes:
        first: held-out loss before the first step.
        heldout: held-out loss after the last one.
        train: mean training loss over the last tenth of the steps.
        rate: the rate.
    """

    template: str
    first: float
    heldout: float
    train: float
    rate: float


def reached(family: Family, template: str, steps: int = FLOOR_STEPS, rates: Sequence[float] = FLOOR_RATES, count: int = _TASKS) -> Reached:
    """Return what Adam with warm-up and cosine reaches on the first tasks of a template; all rates and tasks are one vectorised run.

    Args:
        family: of the template.
        template: one of its names.
        steps: horizon of every run.
        rates: step sizes to choose from; a rate at which a run has a non-finite loss is out.
        count: number of tasks.
    """
    tasks = [family.build(family.sample(template, seed, (steps, steps))) for seed in range(count)]
    theta = {"lr": torch.tensor(rates).repeat_interleave(count)}
    learner = learners.get("adam", schedule=SCHEDULE)
    trace = inner.run(learner, theta, tasks * len(rates), list(range(count)) * len(rates), steps, eval_every=steps, theta_stacked=True)
    tail = trace.loss[-max(1, steps // 10) :].mean(0)
    first, last, train = (loss.reshape(len(rates), count).mean(1).nan_to_num(nan=torch.inf) for loss in (*trace.eval_raw, tail))
    best = int(last.argmin())
    return Reached(template, float(first[best]), float(last[best]), float(train[best]), rates[best])


def floor_of(rows: Sequence[Reached]) -> float:
    """Return the floor that measurements on a family's templates give, to three significant digits, at least 0.

    It is the median over templates of the training or the held-out loss, whichever is lower: both losses of a tuned run then end near 0 or
    above it, however far they are apart.
    """
    return max(0.0, float(f"{statistics.median(min(row.heldout, row.train) for row in rows):.3g}"))
