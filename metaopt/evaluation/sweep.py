"""Evaluate learners on many suites: one report each, kept if nothing that it depends on has changed, and an overview of all."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from metaopt import baselines as known
from metaopt.baselines.code_version import meaningful_source
from metaopt.devices import resolve_device
from metaopt.errors import ConfigError, TaskError
from metaopt.evaluation.candidates import Candidate, LearnerLike, resolve
from metaopt.evaluation.overview import Overview, overview
from metaopt.evaluation.report import SCHEMA_VERSION, Report
from metaopt.evaluation.reporting.files import write_whole
from metaopt.evaluation.runs.fingerprint import fingerprint
from metaopt.evaluation.suites import Suite, load_suite, suite_names
from metaopt.progress import Progress
from metaopt.tasks.number_shifts import is_shifted
from metaopt.version import __version__

__all__ = ["Sweep", "chosen_suites", "evaluate_suites"]

_INPUTS = "inputs.json"  # suite -> what its report was made of


@dataclass(frozen=True)
class Sweep:
    """What `evaluate_suites` returns.

    Attributes:
        overview: of all reports that are there; None if there is none.
        finished: suites that were evaluated now.
        kept: suites whose report was there already, made of the same inputs.
        failures: suite -> why it has no report.
        quarantined: jobs that were given up inside suites that finished; such a suite is evaluated again next time.
    """

    overview: Overview | None
    finished: list[str]
    kept: list[str]
    failures: dict[str, str]
    quarantined: int


def chosen_suites(names: Sequence[str]) -> dict[str, Suite | str]:
    """Return suites by name in the order asked for; one whose tasks are not what they were is the reason as text instead.

    Args:
        names: bundled names, paths of YAML files, `all` (every bundled suite) or `axes` (every one that goes along an axis).

    Raises:
        ConfigError: an unknown name, a file that is no suite, two suites of one name, or none at all.
    """
    found: dict[str, Suite | str] = {}
    paths: dict[str, str] = {}
    for wanted in names:
        for name in suite_names() if wanted in ("all", "axes") else (wanted,):
            stem = Path(name).stem if name.endswith(".yaml") else name
            if paths.setdefault(stem, name) != name:
                raise ConfigError(f"suites {paths[stem]!r} and {name!r} are both called {stem!r}; rename one file")
            try:
                suite: Suite | str = load_suite(name)
            except TaskError as error:
                suite = f"TaskError: {error}"
            if wanted != "axes" or (isinstance(suite, Suite) and suite.axis is not None):
                found.setdefault(stem, suite)
    if not found:
        raise ConfigError("suites must name at least one; bundled: " + ", ".join(suite_names()))
    return found


def evaluate_suites(
    learners: LearnerLike | Sequence[LearnerLike],
    suites: Sequence[str],
    out: str | os.PathLike[str],
    run: Callable[..., Report],
    baselines: str | Sequence[str] | None = None,
    seeds: int | None = None,
    workers: int = 0,
    address: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Sweep:
    """Evaluate learners on each suite into `out/SUITE`, and write the overview of all of them to `out`.

    A report that is there and was made of the same learners, tasks, baselines, seeds and code is kept; whatever else was computed before a
    run ended comes from the caches. A suite that fails is counted and does not stop the others.

    Args:
        learners, baselines, seeds, workers, address, device: see `metaopt.evaluate`.
        suites: see `chosen_suites`.
        out: folder; created if need be.
        run: what evaluates one suite: `metaopt.evaluate`, or a function with its keywords.
        progress: called after every job, with the suite in front of what is done.

    Raises:
        ConfigError: bad input: an unknown name or value, or every suite was refused; nothing has been written then.
        UnsafeArtifactError: an artifact that does not load.
    """
    candidates, plans, folder = resolve(learners), chosen_suites(suites), Path(out)
    place = resolve_device(device)
    failures: dict[str, str] = {}
    finished: list[str] = []
    kept: list[str] = []
    refused: list[ConfigError] = []
    quarantined = 0
    for name, plan in plans.items():
        if isinstance(plan, str):
            failures[name] = plan
            continue
        inputs = _inputs(plan, candidates, baselines, seeds, place.type)
        if inputs is not None and _recorded(folder).get(name) == inputs and (folder / name / "report.json").is_file():
            kept.append(name)
            continue
        _record(folder, name, None)  # until the new report is there and recorded, none is
        try:
            report = run(
                candidates,
                suite=_asked(suites, name),
                baselines=baselines,
                seeds=seeds,
                out=folder / name,
                workers=workers,
                address=address,
                device=device,
                progress=_prefixed(name, progress),
            )
        except Exception as error:  # counted: hours of other suites must not hang on this one
            failures[name] = " ".join(f"{type(error).__name__}: {error}".split())
            refused += [error] if isinstance(error, ConfigError) else []
            continue
        finished.append(name)
        quarantined += report.quarantined
        _record(folder, name, inputs if not report.quarantined else None)
    done = [name for name in plans if name in finished or name in kept]
    if not done and refused and len(refused) == len(failures):
        raise refused[0]
    return Sweep(overview([folder / name for name in done], folder, failures) if done else None, finished, kept, failures, quarantined)


def _inputs(
    plan: Suite, candidates: Sequence[Candidate], baselines: str | Sequence[str] | None, seeds: int | None, device: str
) -> dict[str, Any] | None:
    """Return everything that decides what a report says, as JSON values; None if the code of a learner is not known."""
    code = [fingerprint(one.learner, one.theta) for one in candidates]
    if None in code:
        return None
    names = plan.baselines if baselines is None else baselines.split(",") if isinstance(baselines, str) else baselines
    chosen = [known.get(name.strip()) for name in dict.fromkeys(names)]
    return {
        "learners": [[one.name, one.meta_seed, one.kind, one.hash, version] for one, version in zip(candidates, code, strict=True)],
        "tasks": {task.name: [task.spec.hash, task.level, sorted(task.kinds)] for task in plan.tasks},
        "baselines": {one.name: [str(trial) for trial in one.trials(max(known.TRIALS))] for one in chosen},
        "seeds": plan.seeds if seeds is None else seeds,
        "device": device,
        "task_code": sorted({known.code_version(task.spec.family, is_shifted(task.spec.values)) for task in plan.tasks}),
        "report_code": _report_code(),
        "versions": {"metaopt": __version__, "torch": torch.__version__, "report": SCHEMA_VERSION},
    }


@cache
def _report_code() -> str:
    """Return a hash of the code that turns runs into a report; what makes overviews does not count."""
    here = Path(__file__).parent
    sources = [path for path in sorted(here.rglob("*.py")) if path.name != Path(__file__).name and path.parent.name != "overview"]
    return hashlib.blake2b("\f".join(meaningful_source(path.read_text("utf-8")) for path in sources).encode(), digest_size=8).hexdigest()


def _asked(suites: Sequence[str], name: str) -> str:
    """Return how a suite was asked for: its path, or its bundled name."""
    return next((asked for asked in suites if asked.endswith(".yaml") and Path(asked).stem == name), name)


def _prefixed(suite: str, progress: Progress | None) -> Progress | None:
    if progress is None:
        return None

    def show(what: str, done: int, total: int, numbers: Mapping[str, float | str] | None = None, /) -> None:
        progress(f"{suite}: {what}", done, total, numbers)

    return show


def _recorded(folder: Path) -> dict[str, Any]:
    """Return what the reports in a folder were made of; nothing if that cannot be read, for a report can be made again."""
    try:
        found = json.loads((folder / _INPUTS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _record(folder: Path, suite: str, inputs: dict[str, Any] | None) -> None:
    before = _recorded(folder)
    recorded = {name: made_of for name, made_of in (before | {suite: inputs}).items() if made_of is not None}
    if recorded == before:
        return
    write_whole(folder / _INPUTS, (json.dumps(recorded, indent=1, sort_keys=True) + "\n").encode())
