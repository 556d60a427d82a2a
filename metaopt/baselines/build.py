"""Compute what a store should hold for a list of tasks: two processes on two cores, and again from where it stopped.

First round: every trial of every baseline on tuning seeds, and the envelope of constant rates. Second round: what tuning chose, on
evaluation seeds, and the references with longer schedules. Each set of curves is kept as soon as it is there, so a build that is killed
loses what was running, and one that is started again computes the rest. The same curves come out for any number of processes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context

import torch

from metaopt import seeds, tasks
from metaopt.baselines.catalogue import DEFAULT, TRIALS, Baseline, get, names, variants
from metaopt.baselines.runs import Curves, run_job
from metaopt.baselines.store import CurveKey, Store
from metaopt.baselines.tuning import Tuned, envelope_key, evaluation_key, reference_keys, seed_blocks, tune, tuning_keys
from metaopt.errors import ConfigError, WorkerLostError
from metaopt.progress import Progress
from metaopt.tasks import Task, TaskSpec

__all__ = ["SEEDS", "Built", "build", "is_full_batch", "shipped", "suits"]

SEEDS = 5  # evaluation seeds whose curves are kept


@dataclass
class Built:
    """What a build did.

    Attributes:
        found: sets of curves that were there.
        computed: those that were not.
        failures: what could not be computed, and why.
    """

    found: int = 0
    computed: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def shipped() -> tuple[str, ...]:
    """Return the baselines of the shipped stores: every optimizer that is `stored`, and two of them under every schedule."""
    return tuple(dict.fromkeys((*(name for name in names() if get(name).stored), *variants("sgd_momentum", "adamw"))))


def is_full_batch(task: Task) -> bool:
    """Return whether a task's batches are all alike and its gradients those of its loss."""
    one, two = (task.batch(seeds.key("full batch", i), torch.tensor(i)) for i in range(2))
    return getattr(task.program, "gradients", None) is None and all(torch.equal(one[name], two[name]) for name in one)


def suits(baseline: Baseline, spec: TaskSpec) -> bool:
    """Return whether a baseline makes sense on a task: one for full batches needs them."""
    return not baseline.full_batch or is_full_batch(tasks.build(spec))


def build(
    specs: Sequence[TaskSpec],
    baselines: Sequence[Baseline],
    store: Store,
    trials: int = max(TRIALS),
    workers: int = 1,
    progress: Progress | None = None,
) -> Built:
    """Put into `store` what it lacks of the baselines' curves on some tasks.

    Args:
        specs: tasks; a baseline that does not suit one is left out there.
        baselines: the best of them is a task's reference, and so is the best of those that an evaluation runs by default.
        store: its last folder is written.
        trials: largest budget, [1, MOST_TRIALS]; up to 15 cost the same.
        workers: processes of one thread each, >= 1; 1 is this one.
        progress: called with steps done and wanted of the round after every set of curves.

    Raises:
        ConfigError: workers < 1 or trials out of range.
        WorkerLostError: a process died; what was done is kept.
    """
    if workers < 1:
        raise ConfigError(f"workers must be >= 1, got {workers}")
    built = Built()
    plan = {spec.hash: (spec, [one for one in baselines if suits(one, spec)]) for spec in specs}
    tuning = {(spec.hash, one.name): tuning_keys(spec, one, trials) for spec, chosen in plan.values() for one in chosen}
    wanted = [key for group in tuning.values() for key in group] + [envelope_key(spec) for spec, _ in plan.values()]
    curves = _round("baselines, tuning", wanted, store, workers, progress, built)
    later: list[CurveKey] = []
    for spec, chosen in plan.values():
        cap = tasks.build(spec).program.cap
        groups = {one.name: tuning[spec.hash, one.name] for one in chosen}
        tuned = [tune(group, curves, cap) for group in groups.values() if all(key in curves for key in group)]
        later += _runs(spec, tuned)
    _round("baselines, runs", later, store, workers, progress, built)
    return built


def _runs(spec: TaskSpec, tuned: Sequence[Tuned]) -> Iterator[CurveKey]:
    """Yield the keys of the second round: chosen trials, the reference of all baselines and that of the default ones."""
    usual = [one for one in tuned if one.baseline.name in DEFAULT]
    for block in seed_blocks(SEEDS):
        for one in tuned:
            yield evaluation_key(spec, one, block)
        for group in (tuned, usual):
            if group:
                yield from reference_keys(spec, group, block)


def _round(
    what: str, wanted: Sequence[CurveKey], store: Store, workers: int, progress: Progress | None, built: Built
) -> dict[CurveKey, Curves]:
    keys = list(dict.fromkeys(wanted))
    curves = {key: kept for key in keys if (kept := store.get(key)) is not None}
    built.found += len(curves)
    missing = sorted((key for key in keys if key not in curves), key=lambda key: -key.work)  # long ones first: no process waits at the end
    done, total = 0, sum(key.work for key in missing)
    for key, result in _computed(missing, workers):
        if isinstance(result, str):
            built.failures[f"{key.baseline.name} on {key.spec.hash}, horizon {key.spec.horizon}"] = result
        else:
            store.put(key, result)
            curves[key] = key.kept(result)
            built.computed += 1
        done += key.work
        if progress is not None:
            progress(what, done, total)
    return curves


def _computed(keys: Sequence[CurveKey], workers: int) -> Iterator[tuple[CurveKey, Curves | str]]:
    if workers == 1 or len(keys) < 2:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from ((key, _compute(key)) for key in keys)
        finally:
            torch.set_num_threads(threads)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        running = {pool.submit(_compute, key): key for key in keys}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            raise WorkerLostError(
                "a process of the build died (out of memory?); what is done is kept, start again with fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _compute(key: CurveKey) -> Curves | str:
    """Return the curves of a key, or why there are none: one bad set must not end a build of hours."""
    try:
        return run_job(key.job())
    except (RuntimeError, ValueError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
