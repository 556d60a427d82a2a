"""Run jobs over a pool, from a store where their curves are known already, and keep each as soon as it is there.

All jobs of a call go to the pool at once, the longest first, and each free worker takes the next: nobody waits for a round to end. What has
arrived is kept before the next result is looked at, so an evaluation that is killed has only to compute what was missing.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from metaopt.baselines import CurveKey, Curves, Job, Store, run_job
from metaopt.baselines.store import Key
from metaopt.cluster import Pool, Reason, WorkItem, WorkResult
from metaopt.errors import WorkerLostError
from metaopt.evaluation.runs.group_run import GroupJob, run_group
from metaopt.progress import Progress

__all__ = ["EvaluationSetup", "JobRunner", "Wanted"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationSetup:
    """Recipe of a worker: it holds nothing between jobs."""

    def build(self) -> "EvaluationWorker":
        """Return a fresh worker."""
        return EvaluationWorker()


class EvaluationWorker:
    """Turns a job into `Curves`."""

    def handle(self, item: WorkItem) -> Curves:
        """Return the curves of the job in `item.payload`."""
        return run_group(item.payload) if isinstance(item.payload, GroupJob) else run_job(item.payload)


@dataclass(frozen=True)
class Wanted:
    """Curves that somebody wants, and how to get them.

    Attributes:
        label: what they are, for timings and messages.
        job: computes them.
        work: inner steps of all its runs together.
        key: what they are filed under; None where that cannot be said, so that they are computed every time.
    """

    label: str
    job: Job | GroupJob
    work: int
    key: Key | None


def _again(item: WorkItem, reason: Reason) -> WorkItem:
    """Issue a lost or failed job as it was: a job needs nothing that a worker could have lost."""
    return replace(item, attempt=item.attempt + 1)


@dataclass
class JobRunner:
    """Runs jobs, and remembers what they took.

    Attributes:
        pool: where jobs run.
        store: where baseline curves are looked up and kept.
        device: of the jobs that are made here from curve keys.
        progress: called with the inner steps done and to do, before the first job of a call and after each.
        runs: where runs of learners are looked up and kept; None for nowhere.
        seconds: computing time of every job so far, by its label.
    """

    pool: Pool
    store: Store
    device: str
    progress: Progress | None = None
    runs: Store | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    _refused: bool = False

    def learner_curves(self, wanted: Sequence[Wanted], what: str) -> list[Curves | str]:
        """Return the curves of learners in the order asked for, or the reason why a job was given up after three attempts."""
        return self._run(wanted, self.runs, what)

    def baseline_curves(self, keys: Iterable[CurveKey], what: str) -> dict[CurveKey, Curves]:
        """Return the curves of all keys; those that the store lacks are computed and kept there.

        Raises:
            WorkerLostError: a baseline's job failed three times; there is no report without its reference.
        """
        chosen = list(dict.fromkeys(keys))
        wanted = [Wanted(_baseline_label(key, what), key.job(self.device), key.work, key) for key in chosen]
        found: dict[CurveKey, Curves] = {}
        for key, curves in zip(chosen, self._run(wanted, self.store, what), strict=True):
            if isinstance(curves, str):
                raise WorkerLostError(f"baseline {key.baseline.name} failed on task {key.spec.hash}: {curves}")
            found[key] = curves
        return found

    def _run(self, wanted: Sequence[Wanted], store: Store | None, what: str) -> list[Curves | str]:
        texts = [str(i) if one.key is None else one.key.to_json() for i, one in enumerate(wanted)]  # equal ones are computed once
        found: dict[str, Curves | str] = {}
        for text, one in zip(texts, wanted, strict=True):
            if one.key is not None and store is not None and text not in found and (kept := store.get(one.key)) is not None:
                found[text] = kept
        missing = {text: one for text, one in zip(texts, wanted, strict=True) if text not in found}
        order = sorted(missing, key=lambda text: -missing[text].work)
        done, total = 0, sum(one.work for one in missing.values())

        def arrived(result: WorkResult) -> None:
            nonlocal done
            text = order[result.item.work_id]
            one = missing[text]
            self.seconds[one.label] = result.seconds
            if result.error is not None:
                found[text] = _last_line(result.error)
            else:
                found[text] = result.value.stored() if one.key is None else one.key.kept(result.value)
                self._keep(store, one.key, result.value)
            done += one.work
            self._tell(what, done, total)

        if order:
            self._tell(what, 0, total)
            self.pool.run([WorkItem(0, i, 0, missing[text].job) for i, text in enumerate(order)], _again, arrived, anywhere=True)
        return [found[text] for text in texts]

    def _keep(self, store: Store | None, key: Key | None, curves: Curves) -> None:
        """Keep curves; a full or forbidden folder costs their next computation, not this evaluation."""
        if store is None or key is None:
            return
        try:
            store.put(key, curves)
        except OSError as error:
            if not self._refused:
                _log.warning("curves cannot be kept in %s and will be computed again next time: %s", store.folders[-1], error)
            self._refused = True

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)


def _baseline_label(key: CurveKey, what: str) -> str:
    return f"{what}: {key.baseline.name} on {key.spec.hash}, horizon {key.spec.horizon}, seed {key.seeds[0]}"


def _last_line(trace: str) -> str:
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
