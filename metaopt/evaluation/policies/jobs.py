"""Pieces of work of an evaluation for a pool: plays of a policy, and the runs of baselines that it is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from metaopt.artifacts import Artifact
from metaopt.artifacts.policy import load_policy
from metaopt.baselines.budget_runs import BudgetRuns, compute
from metaopt.baselines.runs import Curves
from metaopt.cluster import LocalPool, Pool, Reason, WorkItem
from metaopt.errors import WorkerLostError
from metaopt.evaluation.policies.loop import Play, Rails, greedy_actor, play, random_actor, replay
from metaopt.learners.policies.network import PolicySpec
from metaopt_envs.settings import Bucket, Settings

__all__ = ["PlayJob", "PolicyEvaluationSetup", "Who", "own_pool", "run_plays"]

Who = Literal["greedy", "random", "replay"]


@dataclass(frozen=True, eq=False)
class PlayJob:
    """One actor on one bucket; picklable.

    Attributes:
        who: the artifact's most likely choices, uniform ones, or `values` that nobody chooses.
        artifact: of the policy; also what says which choices there are.
        bucket, settings, run_seeds, rails: see `loop.play`.
        values: knobs after each decision, [T, 1 or E, K]; for a replay.
    """

    who: Who
    artifact: Artifact
    bucket: Bucket
    settings: Settings
    run_seeds: tuple[int, ...]
    rails: Rails
    values: Tensor | None = None


@dataclass(frozen=True)
class PolicyEvaluationSetup:
    """Recipe of a worker that plays policies and runs baselines; it holds nothing between jobs."""

    def build(self) -> "PolicyEvaluationWorker":
        """Return a fresh worker."""
        return PolicyEvaluationWorker()


class PolicyEvaluationWorker:
    """Turns `PlayJob` into `Play`, and `BudgetRuns` into `Curves`."""

    def handle(self, item: WorkItem) -> Play | Curves:
        """Return what the job in `item.payload` gives."""
        return compute(item.payload) if isinstance(item.payload, BudgetRuns) else _played(item.payload)


def own_pool() -> Pool:
    """Return a pool in this process, with one thread."""
    return LocalPool(PolicyEvaluationSetup(), 1)


def run_plays(jobs: Sequence[PlayJob], pool: Pool) -> list[Play]:
    """Return the plays of jobs in their order, the longest first on the pool; none depends on it.

    Raises:
        WorkerLostError: a job failed three times.
    """
    order = sorted(range(len(jobs)), key=lambda i: -jobs[i].bucket.horizon)
    results = pool.run([WorkItem(0, i, 0, jobs[at]) for i, at in enumerate(order)], _again, anywhere=True)
    found: dict[int, Play] = {}
    for at, result in zip(order, results, strict=True):
        if result.error is not None:
            job = jobs[at]
            raise WorkerLostError(f"{job.who} play on {job.bucket.family} {job.bucket.template}: {result.error.strip().splitlines()[-1]}")
        found[at] = result.value
    return [found[i] for i in range(len(jobs))]


def _again(item: WorkItem, reason: Reason) -> WorkItem:
    return replace(item, attempt=item.attempt + 1)


@torch.no_grad()
def _played(job: PlayJob) -> Play:
    if job.who == "replay":
        assert job.values is not None
        return replay(job.values.expand(-1, len(job.run_seeds), -1), job.bucket, job.run_seeds)
    network = load_policy(job.artifact)
    assert isinstance(network.spec, PolicySpec)
    runs = len(job.run_seeds)
    actor = greedy_actor(network, runs) if job.who == "greedy" else random_actor(network.spec, runs, job.run_seeds[0])
    return play(actor, job.bucket, job.settings, job.run_seeds, job.rails)
