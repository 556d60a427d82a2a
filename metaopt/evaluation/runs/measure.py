"""Run everything that an evaluation needs: learners, tuned baselines, the reference of each task, and envelopes of constant rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metaopt import baselines as known
from metaopt.baselines import REFERENCE_HORIZONS, CurveKey, Curves, Trial, Tuned
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.runs.jobs import JobRunner
from metaopt.evaluation.runs.learner_runs import groups, learner_jobs, task_curves
from metaopt.evaluation.scores.speedup import constant_rate_envelope, matched_decay
from metaopt.evaluation.tables.rows import Array, Reference, ScoredTask

__all__ = ["Measured", "measure"]


@dataclass(frozen=True)
class Measured:
    """Curves of an evaluation, on the same inner seeds.

    Attributes:
        learners: (learner, meta-seed, task) -> curves, or the reason why the job was given up. A learner has none on a task that its kind
            cannot run on.
        tuned: task -> what tuning found for each baseline.
        baselines: (task, baseline, trial) -> curves, for every trial that some budget chose.
        references: task -> the best scheduled configuration.
        envelopes: task -> steps and losses of the constant-rate envelope; empty where it was not asked for.
    """

    learners: dict[tuple[str, int, str], Curves | str]
    tuned: dict[str, list[Tuned]]
    baselines: dict[tuple[str, str, Trial], Curves]
    references: dict[str, Reference]
    envelopes: dict[str, tuple[Array, Array]]


def measure(
    runner: JobRunner,
    candidates: Sequence[Candidate],
    chosen: Sequence[known.Baseline],
    scored: Sequence[ScoredTask],
    count: int,
    envelope: bool = False,
) -> Measured:
    """Return the curves of all candidates and chosen baselines on the first `count` seeds of every task.

    Args:
        runner: runs what no store knows.
        candidates: each with a name and meta-seed of its own.
        chosen: baselines; the best of them on a task is its reference.
        scored: tasks, each with its own name.
        count: inner seeds of each, >= 1.
        envelope: whether to have envelopes of constant rates, fifteen runs of four horizons for a task that no store knows.

    Raises:
        WorkerLostError: a baseline could not be computed.
    """
    learners = _measure_learners(runner, candidates, scored, count)
    tuned = _tune(runner, chosen, scored)
    finals, references = _measure_baselines(runner, tuned, scored, count)
    return Measured(learners, tuned, finals, references, _envelopes(runner, scored, references) if envelope else {})


def _measure_learners(
    runner: JobRunner, candidates: Sequence[Candidate], scored: Sequence[ScoredTask], count: int
) -> dict[tuple[str, int, str], Curves | str]:
    together = groups(scored)
    blocks = len(known.seed_blocks(count))
    jobs = [job for candidate in candidates for job in learner_jobs(candidate, together, count, runner.device)]
    curves = iter(runner.learner_curves(jobs, "learners"))
    found = {}
    for candidate in candidates:
        for group in together:
            if candidate.kind in group[0].kinds:
                parts = task_curves(group, [next(curves) for _ in range(blocks)], count)
                found.update({(candidate.name, candidate.meta_seed, name): one for name, one in parts.items()})
    return found


def _tune(runner: JobRunner, chosen: Sequence[known.Baseline], scored: Sequence[ScoredTask]) -> dict[str, list[Tuned]]:
    keys = {task.name: [known.recorded_keys(task.spec, baseline, runner.store) for baseline in chosen] for task in scored}
    curves = runner.baseline_curves((key for own in keys.values() for group in own for key in group), "baselines, tuning")
    return {task.name: [known.tune(group, curves, task.cap) for group in keys[task.name]] for task in scored}


def _envelopes(runner: JobRunner, scored: Sequence[ScoredTask], references: Mapping[str, Reference]) -> dict[str, tuple[Array, Array]]:
    keys = {task.name: known.envelope_key(task.spec) for task in scored}
    curves = runner.baseline_curves(keys.values(), "constant rates")
    envelopes = {}
    for task in scored:
        key = keys[task.name]
        steps, own = curves[key].steps, references[task.name].runs[task.spec.horizon].steps
        envelopes[task.name] = constant_rate_envelope(steps, key.by_trial(curves[key]), matched_decay(steps, own))
    return envelopes


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
