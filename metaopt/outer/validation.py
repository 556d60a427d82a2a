"""Fixed evaluation particles: the same held-out tasks and seeds whatever theta is measured on them.

They come from `meta_valid` templates, which neither meta-training nor any suite uses. There are two sets, which share no seed: one chooses
the artifact, the other tells how much meta-training changed. What was chosen by the first is flattered by it, and by it alone.

Legend: K thetas that are compared, n particles of one template.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaopt import inner, tasks
from metaopt.cluster import Pool, Shared, WorkItem, WorkResult
from metaopt.config import Config
from metaopt.learners import Learner
from metaopt.learners.update_rules import Theta
from metaopt.outer.curriculum import template_cost
from metaopt.seeds import stable_hash

__all__ = [
    "Change",
    "Job",
    "Measured",
    "ValidationWork",
    "change_between",
    "measure",
    "measure_all",
    "paired",
    "report_jobs",
    "selection_jobs",
]

_REPORTED_PARTICLES = 4  # a template
_FIRST_ID = 1 << 20  # of work items, above those of shards, which keep their workers
_HELDOUT_POINTS = 8  # a run, the last one at its end
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Change:
    """Meta-loss (mean normalised loss of a run) before and after, and the mean paired difference with its 95 % normal interval.

    The standard error is stratified: particles vary within their template.
    """

    before: float
    after: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Job:
    """The particles of one template: one piece of work.

    Attributes:
        draws: a seed for each particle's task and run.
        objective: "train", the mean loss of the run; "heldout", the mean loss on held-out examples at points along the run.
    """

    family: str
    template: str
    horizon: int
    draws: tuple[int, ...]
    objective: str

    @property
    def name(self) -> str:
        """`family/template`, unique in a set of jobs."""
        return f"{self.family}/{self.template}"


@dataclass(frozen=True)
class ValidationWork:
    """Payload of a work item: measure `thetas` on the job's particles."""

    job: Job
    thetas: Shared[tuple[Theta, ...]]


@dataclass(frozen=True)
class Measured:
    """Normalised losses [K, n] (float64, CPU, capped), the number of diverged runs of each theta, and inner steps made."""

    loss: Tensor
    diverged: tuple[int, ...]
    inner_steps: int


def report_jobs(config: Config) -> tuple[Job, ...]:
    """Return the particles on which the change of a finished run is told: all `meta_valid` templates of its families."""
    jobs: dict[str, Job] = {}
    for entry in config.tasks:
        for template in tasks.get(entry.family).templates("meta_valid"):
            draws = tuple(stable_hash("validation", entry.family, template, i) for i in range(_REPORTED_PARTICLES))
            horizon = max([entry.horizon[1], *(phase.horizon[1] for phase in config.outer.phases if phase.horizon)])
            job = Job(entry.family, template, horizon, draws, "train")
            if job.name not in jobs or jobs[job.name].horizon < horizon:
                jobs[job.name] = job
    return _long_first(list(jobs.values()))


def selection_jobs(config: Config) -> tuple[Job, ...]:
    """Return the particles that choose the artifact; none without `validation`. They share no seed with `report_jobs`."""
    if (section := config.validation) is None:
        return ()
    longest = {job.family: job.horizon for job in report_jobs(config)}
    jobs = []
    for family in dict.fromkeys(section.tasks or (entry.family for entry in config.tasks)):
        templates = tasks.get(family).templates("meta_valid")
        drawn = sorted(templates, key=lambda name: stable_hash("selection template", config.seed, family, name))[: section.max_templates]
        horizon = section.horizon or longest.get(family, max(entry.horizon[1] for entry in config.tasks))
        for template in drawn:
            draws = tuple(stable_hash("selection", config.seed, family, template, i) for i in range(section.particles))
            jobs.append(Job(family, template, horizon, draws, section.objective))
    return _long_first(jobs)


def _long_first(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Return the jobs with the longest first, so that no worker begins one when all others are done."""
    return tuple(sorted(jobs, key=lambda job: (-job.horizon * template_cost(tasks.get(job.family), job.template), job.name)))


def measure(learner: Learner, thetas: Sequence[Theta], job: Job, device: str = "cpu") -> Measured:
    """Return the losses of thetas on the particles of a job; a pure function of its arguments."""
    family, count, steps = tasks.get(job.family), len(job.draws), job.horizon
    batch = [family.build(family.sample(job.template, draw, (steps, steps))).to(device) for draw in job.draws]
    stacked = {k: torch.stack([theta[k] for theta in thetas for _ in range(count)]).to(device) for k in thetas[0]}
    every = 0 if job.objective == "train" else max(1, steps // _HELDOUT_POINTS)
    with torch.no_grad():
        trace = inner.run(learner, stacked, batch * len(thetas), job.draws * len(thetas), steps, eval_every=every, theta_stacked=True)
    loss = trace.eval_loss[1:] if every else trace.normalised  # the held-out loss before the first update is the same for all
    diverged = tuple(int(part.sum()) for part in trace.diverged.cpu().chunk(len(thetas)))
    return Measured(loss.double().mean(0).cpu().reshape(len(thetas), count), diverged, steps * count * len(thetas))


def measure_all(pool: Pool, step: int, jobs: Sequence[Job], thetas: Sequence[Theta]) -> tuple[dict[str, Measured], list[WorkResult]]:
    """Return what the workers measured, by the name of the job, and all results, those of jobs that failed for good with their error."""
    shared = pool.share(tuple(thetas))
    items = [WorkItem(step, _FIRST_ID + i, 0, ValidationWork(job, shared)) for i, job in enumerate(jobs)]
    results = pool.run(items, lambda item, reason: replace(item, attempt=item.attempt + 1))  # builds on nothing that a worker could lack
    return {result.item.payload.job.name: result.value for result in results if result.error is None}, results


def paired(losses: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None = None) -> tuple[float, float]:
    """Return the mean over templates of losses [n], less those of a reference on the same particles, and its stratified standard error."""
    values = {name: loss - reference[name] if reference is not None else loss for name, loss in sorted(losses.items())}
    if not values:
        return math.nan, math.nan
    mean = sum(float(value.mean()) for value in values.values()) / len(values)
    return mean, math.sqrt(sum(float(value.var()) / len(value) for value in values.values())) / len(values)


def change_between(measured: Mapping[str, Measured]) -> Change:
    """Return the change from the first of two thetas to the second; not-a-number where no template was measured."""
    before, after = ({name: value.loss[k] for name, value in measured.items()} for k in (0, 1))
    difference, se = paired(after, before)
    return Change(paired(before)[0], paired(after)[0], difference, difference - _NORMAL_95 * se, difference + _NORMAL_95 * se)
