"""Evaluate learners on a suite of held-out tasks, beside tuned and scheduled baselines."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from metaopt import baselines as known
from metaopt import tasks
from metaopt.baselines import Store
from metaopt.cluster import make_pool
from metaopt.devices import resolve_device
from metaopt.errors import ConfigError
from metaopt.evaluation.candidates import Candidate, LearnerLike, resolve
from metaopt.evaluation.cost import time_steps, wall_clock
from metaopt.evaluation.provenance import provenance
from metaopt.evaluation.report import FILES, Report, write_report
from metaopt.evaluation.reporting.files import TEMPORARY
from metaopt.evaluation.runs.jobs import EvaluationSetup, JobRunner
from metaopt.evaluation.runs.learner_runs import THREADS, run_store
from metaopt.evaluation.runs.measure import measure
from metaopt.evaluation.suites import Suite, load_suite
from metaopt.evaluation.tables.rows import ScoredTask
from metaopt.evaluation.tables.tabulate import tabulate
from metaopt.progress import Progress

__all__ = ["evaluate"]


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
        baselines: names, a list or separated by commas; default: those of the suite. The best of them on a task is its reference.
        seeds: inner seeds of each task, >= 1; default: the suite's.
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
    candidates, plan = resolve(learners), load_suite(suite)
    chosen = _chosen_baselines(plan.baselines if baselines is None else baselines)
    count = plan.seeds if seeds is None else seeds
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"seeds must be an integer >= 1, got {count!r}")
    _check_kinds(candidates, plan)
    place = resolve_device(device)
    folder = _report_folder(out, plan.name)
    scored = [
        ScoredTask(task.name, task.spec, tasks.build(task.spec).program.cap, known.evaluation_seeds(task.spec, 0, count), task.kinds)
        for task in sorted(plan.tasks, key=lambda task: task.name)
    ]
    with make_pool(workers, address, EvaluationSetup(), THREADS, place.type) as pool:
        # A Ray worker sees only its own share of the accelerators, the first of which has no number.
        runner = JobRunner(pool, store or Store(), place.type if workers else str(place), progress, run_store())
        measured = measure(runner, candidates, chosen, scored, count, envelope=plan.axis is None)
    results = tabulate(plan, candidates, chosen, measured, scored, provenance(plan, candidates, chosen, count, place, THREADS))
    steps = time_steps(plan, candidates, measured, str(place), progress)  # when no worker runs beside it
    timings = {
        "seconds": time.monotonic() - started,
        "workers": workers,
        "load_average": list(os.getloadavg()),
        "jobs": dict(sorted(runner.seconds.items())),
        "step_seconds": steps,
        "wall_clock": wall_clock(steps, results.scores),
    }
    gone = sum(isinstance(curves, str) for curves in measured.learners.values())
    return write_report(results, timings, folder, quarantined=gone)


def _chosen_baselines(wanted: str | Sequence[str]) -> list[known.Baseline]:
    names = wanted.split(",") if isinstance(wanted, str) else list(wanted)
    chosen = [known.get(name.strip()) for name in dict.fromkeys(names)]
    if not chosen:
        raise ConfigError("baselines must name at least one: speed-ups are measured against the best of them")
    return chosen


def _check_kinds(candidates: Sequence[Candidate], plan: Suite) -> None:
    for one in candidates:
        if not any(one.kind in task.kinds for task in plan.tasks):
            raise ConfigError(f"learner {one.name!r} is of kind {one.kind!r}, which can run on no task of suite {plan.name!r}")


def _report_folder(out: str | os.PathLike[str] | None, suite: str) -> Path:
    folder = Path(out) if out is not None else Path("reports") / f"{suite}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and (not folder.is_dir() or _is_foreign(folder)):
        raise ConfigError(f"out {str(folder)!r} exists and holds no report; give another folder or empty it")
    return folder


def _is_foreign(folder: Path) -> bool:
    """Return whether a folder holds something, and neither a report nor what is left of one whose writing was interrupted."""
    found = {path.name for path in folder.iterdir()}
    return "report.json" not in found and any(name not in FILES and not name.startswith(TEMPORARY) for name in found)
