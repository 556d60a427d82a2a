"""Run jobs and baseline curves over a pool, from the store where they are known already."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from metaopt.baselines import CurveKey, Curves, Job, Store, run_job
from metaopt.cluster import Pool, Reason, WorkItem
from metaopt.errors import WorkerLostError
from metaopt.progress import Progress

__all__ = ["EvaluationSetup", "JobRunner"]


@dataclass(frozen=True)
class EvaluationSetup:
    """Recipe of a worker: it holds nothing between jobs."""

    def build(self) -> "EvaluationWorker":
        """Return a fresh worker."""
        return EvaluationWorker()


class EvaluationWorker:
    """Turns a `Job` into `Curves`."""

    def handle(self, item: WorkItem) -> Curves:
        """Return the curves of the job in `item.payload`."""
        return run_job(item.payload)


def _again(item: WorkItem, reason: Reason) -> WorkItem:
    """Issue a lost or failed job as it was: a job needs nothing that a worker could have lost."""
    return replace(item, attempt=item.attempt + 1)


@dataclass
class JobRunner:
    """Runs jobs in rounds of one a worker, so that progress shows.

    Attributes:
        pool: where jobs run.
        store: where baseline curves are looked up and kept.
        device: of the jobs that are made here from curve keys.
        progress: called after every round.
        seconds: computing time of every job so far, by what it was.
    """

    pool: Pool
    store: Store
    device: str
    progress: Progress | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job], labels: Sequence[str], what: str) -> Iterator[Curves | str]:
        """Yield the curves of each job in order, as soon as they are there, or the reason why it was given up after three attempts."""
        width = max(1, self.pool.workers)
        for start in range(0, len(jobs), width):
            items = [WorkItem(0, start + i, 0, job) for i, job in enumerate(jobs[start : start + width])]
            for result in self.pool.run(items, _again):
                self.seconds[labels[result.item.work_id]] = result.seconds
                yield result.value if result.error is None else _last_line(result.error)
            if self.progress is not None:
                self.progress(what, start + len(items), len(jobs))

    def baseline_curves(self, keys: Iterable[CurveKey], what: str) -> dict[CurveKey, Curves]:
        """Return the curves of all keys; those that the store lacks are computed and kept there.

        Raises:
            WorkerLostError: a baseline's job failed three times; there is no report without its reference.
        """
        wanted = list(dict.fromkeys(keys))
        found = {key: curves for key in wanted if (curves := self.store.get(key)) is not None}
        missing = [key for key in wanted if key not in found]
        labels = [f"{what}: {key.baseline.name} on {key.spec.hash}, horizon {key.spec.horizon}, seed {key.seeds[0]}" for key in missing]
        for key, result in zip(missing, self.run([key.job(self.device) for key in missing], labels, what), strict=True):
            if isinstance(result, str):
                raise WorkerLostError(f"baseline {key.baseline.name} failed on task {key.spec.hash}: {result}")
            self.store.put(key, result)
            found[key] = key.kept(result)
        return found


def _last_line(trace: str) -> str:
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
