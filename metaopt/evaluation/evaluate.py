"""Evaluate learners on a suite of held-out tasks, beside tuned and scheduled baselines."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from metaopt import baselines as known
from metaopt import tasks
from metaopt.baselines import TRIALS, Store
from metaopt.cluster import make_pool
from metaopt.devices import resolve_device
from metaopt.errors import ConfigError
from metaopt.evaluation.candidates import Candidate, LearnerLike, resolve
from metaopt.evaluation.jobs import EvaluationSetup, JobRunner
from metaopt.evaluation.learner_runs import THREADS, run_store
from metaopt.evaluation.measure import Measured, measure
from metaopt.evaluation.provenance import notes, provenance
from metaopt.evaluation.report import Report, write_report
from metaopt.evaluation.results import Results, TaskCurves
from metaopt.evaluation.rows import ScoredTask, failed_job_rows, learner_rows, sort_rows
from metaopt.evaluation.suites import load_suite
from metaopt.evaluation.summary import summarise
from metaopt.progress import Progress

__all__ = ["evaluate"]

DEFAULT_SEEDS = 5


def evaluate(
    learners: LearnerLike | Sequence[LearnerLike],
    suite: str = "quick",
    baselines: str | Sequence[str] | None = None,
    seeds: int | None = None,
    out: str | os.PathLike[str] | None = None,
    workers: int = 0,
    address: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    store: Store | None = None,
) -> Report:
    """Return the report of one or more learners on a suite, and write it to `out`.

    Every learner runs once (no tuning) with the same inner seeds as the baselines, which are tuned on other seeds. Rows and results have
    the same bytes for any number of workers; what depends on the clock is in `timings.json`.

    Args:
        learners: artifacts, names, paths or presets; see `metaopt.evaluation.candidates`.
        suite: bundled name, or path of a YAML file.
        baselines: names, a list or separated by commas; default `metaopt.baselines.DEFAULT`. The best of them on a
            task is its reference.
        seeds: inner seeds of each task, >= 1; default 5.
        out: folder of the report; default `reports/SUITE-TIME`. An earlier report there is replaced.
        workers: 0 runs in this process, N on a Ray of N workers.
        address: a running Ray cluster instead.
        device: `auto`, `cpu`, `cuda`, `cuda:i` or `mps`.
        progress: called after every job.
        store: of baseline curves; default: bundled, then the user's cache.

    Raises:
        ConfigError: unknown suite, baseline, learner or device, or a number out of range; nothing has been written.
        UnsafeArtifactError: an artifact that does not load.
        TaskError: a suite whose tasks changed.
        WorkerLostError: a baseline could not be computed.
    """
    started = time.monotonic()
    candidates = resolve(learners)
    chosen = _chosen_baselines(baselines)
    count = DEFAULT_SEEDS if seeds is None else seeds
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"seeds must be an integer >= 1, got {count!r}")
    plan = load_suite(suite)
    place = resolve_device(device)
    folder = _report_folder(out, plan.name)
    scored = [
        ScoredTask(name, spec, tasks.build(spec).program.cap, known.evaluation_seeds(spec, 0, count))
        for name, spec in sorted(plan.specs.items())
    ]
    with make_pool(workers, address, EvaluationSetup(), THREADS, place.type) as pool:
        # A Ray worker sees only its own share of the accelerators, the first of which has no number.
        runner = JobRunner(pool, store or Store(), place.type if workers else str(place), progress, run_store())
        measured = measure(runner, candidates, chosen, scored, count)
    scores = sort_rows([row for task in scored for row in _rows(task, candidates, measured)])
    references = pd.concat([_reference_rows(scores, task, one.name) for task, one in measured.references.items()])
    order = [(one.name, 1) for one in candidates] + [(one.name, trials) for one in chosen for trials in TRIALS]
    curves = {task.name: _shown(task, candidates, measured) for task in scored}
    full = "; ".join(f"{name}: {one.reference}" for name, one in curves.items())
    results = Results(
        provenance=provenance(plan, candidates, chosen, count, place, THREADS),
        scores=scores,
        summary=summarise(scores, references, order),
        notes=[*notes(scores, measured.tuned, candidates, plan), f"references, tuned on other seeds: {full}"],
        curves=curves,
    )
    timings = {"seconds": time.monotonic() - started, "workers": workers, "jobs": dict(sorted(runner.seconds.items()))}
    gone = sum(isinstance(curves, str) for curves in measured.learners.values())
    return write_report(results, timings, folder, quarantined=gone)


def _rows(task: ScoredTask, candidates: Sequence[Candidate], measured: Measured) -> list[dict[str, object]]:
    reference = measured.references[task.name]
    rows: list[dict[str, object]] = []
    for one in candidates:
        curves = measured.learners[one.name, one.meta_seed, task.name]
        if isinstance(curves, str):
            rows += failed_job_rows(task, one.name, one.hash, curves)
        else:
            rows += learner_rows(task, one.name, 1, curves, reference, kind="learner", learner_hash=one.hash)
    for tuned in measured.tuned[task.name]:
        name = tuned.baseline.name
        for trials, trial in tuned.trials.items():
            curves = measured.baselines[task.name, name, trial]
            rows += learner_rows(task, name, trials, curves, reference, kind="baseline", learner_hash=name, rate=trial.rate)
    return rows


def _reference_rows(scores: pd.DataFrame, task: str, baseline: str) -> pd.DataFrame:
    return scores[(scores.kind == "baseline") & (scores.task == task) & (scores.learner == baseline) & (scores.trials == max(TRIALS))]


def _shown(task: ScoredTask, candidates: Sequence[Candidate], measured: Measured) -> TaskCurves:
    """Return what is drawn for a task: all learners that ran, and each baseline at its largest number of trials."""
    reference, most = measured.references[task.name], max(TRIALS)
    learners = {
        one.name: curves for one in candidates if not isinstance(curves := measured.learners[one.name, one.meta_seed, task.name], str)
    }
    baselines = {
        f"{one.baseline.name} K={most}": measured.baselines[task.name, one.baseline.name, one.trials[most]]
        for one in measured.tuned[task.name]
    }
    best = next(one for one in measured.tuned[task.name] if one.baseline.name == reference.name)
    return TaskCurves(task.spec, f"{reference.name}@{best.baseline.option(best.trials[most])}", learners, baselines)


def _chosen_baselines(wanted: str | Sequence[str] | None) -> list[known.Baseline]:
    names = known.DEFAULT if wanted is None else wanted.split(",") if isinstance(wanted, str) else list(wanted)
    chosen = [known.get(name.strip()) for name in dict.fromkeys(names)]
    if not chosen:
        raise ConfigError("baselines must name at least one: speed-ups are measured against the best of them")
    return chosen


def _report_folder(out: str | os.PathLike[str] | None, suite: str) -> Path:
    folder = Path(out) if out is not None else Path("reports") / f"{suite}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "report.json").is_file())):
        raise ConfigError(f"out {str(folder)!r} exists and holds no report; give another folder or empty it")
    return folder
