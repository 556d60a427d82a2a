"""Run everything that an evaluation needs: learners, tuned baselines, and the reference of each task."""

from collections.abc import Sequence
from dataclasses import dataclass

from metaopt import baselines as known
from metaopt.baselines import REFERENCE_HORIZONS, CurveKey, Curves, Job, Trial, Tuned
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.jobs import JobRunner
from metaopt.evaluation.rows import Reference, ScoredTask

__all__ = ["Measured", "measure"]


@dataclass(frozen=True)
class Measured:
    """Curves of an evaluation, on the same inner seeds.

    Attributes:
        learners: (learner, task) -> curves, or the reason why the job was given up.
        tuned: task -> what tuning found for each baseline.
        baselines: (task, baseline, trial) -> curves, for every trial that some budget chose.
        references: task -> the best scheduled configuration.
    """

    learners: dict[tuple[str, str], Curves | str]
    tuned: dict[str, list[Tuned]]
    baselines: dict[tuple[str, str, Trial], Curves]
    references: dict[str, Reference]


def measure(
    runner: JobRunner, candidates: Sequence[Candidate], chosen: Sequence[known.Baseline], scored: Sequence[ScoredTask], count: int
) -> Measured:
    """Return the curves of all candidates and chosen baselines on the first `count` seeds of every task.

    Raises:
        WorkerLostError: a baseline could not be computed.
    """
    learners = _measure_learners(runner, candidates, scored)
    tuned = _tune(runner, chosen, scored)
    return Measured(learners, tuned, *_measure_baselines(runner, tuned, scored, count))


def _measure_learners(
    runner: JobRunner, candidates: Sequence[Candidate], scored: Sequence[ScoredTask]
) -> dict[tuple[str, str], Curves | str]:
    pairs = [(candidate, task) for task in scored for candidate in candidates]
    jobs = [Job(candidate.learner, candidate.theta, task.spec, task.inner_seeds, device=runner.device) for candidate, task in pairs]
    results = list(runner.run(jobs, [f"{candidate.name} on {task.name}" for candidate, task in pairs], "learners"))
    return {(candidate.name, task.name): result for (candidate, task), result in zip(pairs, results, strict=True)}


def _tune(runner: JobRunner, chosen: Sequence[known.Baseline], scored: Sequence[ScoredTask]) -> dict[str, list[Tuned]]:
    keys = {task.name: [known.tuning_keys(task.spec, baseline) for baseline in chosen] for task in scored}
    curves = runner.baseline_curves((key for groups in keys.values() for group in groups for key in group), "baselines, tuning")
    return {task.name: [known.tune(group, curves, task.cap) for group in keys[task.name]] for task in scored}


def _measure_baselines(
    runner: JobRunner, tuned: dict[str, list[Tuned]], scored: Sequence[ScoredTask], count: int
) -> tuple[dict[tuple[str, str, Trial], Curves], dict[str, Reference]]:
    """Return the curves of every chosen trial, by (task, baseline, trial), and the reference of every task, on the first `count` seeds."""
    blocks = known.seed_blocks(count)
    at_horizon = {
        (t.name, one.baseline.name): [known.evaluation_key(t.spec, one, b) for b in blocks] for t in scored for one in tuned[t.name]
    }
    stretched = {
        (t.name, i): keys
        for t in scored
        for i, keys in enumerate(zip(*(known.reference_keys(t.spec, tuned[t.name], b) for b in blocks), strict=True))
    }
    groups = [*at_horizon.values(), *stretched.values()]
    curves = runner.baseline_curves((key for group in groups for key in group), "baselines, runs")

    def joined(keys: Sequence[CurveKey], trial: Trial) -> Curves:
        return Curves.join([key.at(curves[key], trial) for key in keys]).runs(slice(count))

    finals = {(task, name, trial): joined(keys, trial) for (task, name), keys in at_horizon.items() for trial in keys[0].trials}
    references = {}
    for task in scored:
        keys = [stretched[task.name, i] for i in range(len(REFERENCE_HORIZONS) - 1)]
        name, trial = keys[0][0].baseline.name, keys[0][0].trials[0]
        longer = {group[0].spec.horizon: joined(group, trial) for group in keys}
        references[task.name] = Reference(name, trial.rate, {task.spec.horizon: finals[task.name, name, trial], **longer})
    return finals, references
