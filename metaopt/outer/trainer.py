"""The outer loop: shards estimate meta-gradients, theta follows, and every few steps all of it is committed."""

import logging
import math
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from metaopt.cluster import Pool, Reason, Shared, WorkItem, WorkResult, make_pool, versions
from metaopt.cluster.pool import fixed_threads
from metaopt.config import Config
from metaopt.errors import DivergedError
from metaopt.estimators import MetaGradient
from metaopt.learners.update_rules import Theta
from metaopt.outer import checkpoint
from metaopt.outer.checkpoint import Keep, Meta
from metaopt.outer.export import export
from metaopt.outer.metrics import MetricsWriter, read_metrics, read_rows
from metaopt.outer.plots import plot_run
from metaopt.outer.run_directory import RunDirectory
from metaopt.outer.shards import CatchUp, ShardSetup, ShardWork, make_learner, shard_sources
from metaopt.outer.signals import StopRequest
from metaopt.outer.snapshot import Snapshot
from metaopt.outer.update import OuterUpdate
from metaopt.outer.validation import Change, meta_loss_change
from metaopt.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "train"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a call of `train` left behind.

    Attributes:
        path: the run directory.
        artifact: the artifact's folder; exists unless `stopped`.
        quarantined: shards given up.
        stopped: a signal ended the run early; it can be resumed.
        change: meta-loss on fixed held-out particles, before and after; None if `stopped`.
    """

    path: Path
    artifact: Path
    quarantined: int
    stopped: bool
    change: Change | None

    @cached_property
    def metrics(self) -> "pd.DataFrame":
        """One row an outer step."""
        return read_metrics(self.path / "metrics.jsonl")


def train(
    config: Config,
    run_dir: Path,
    workers: int = 0,
    address: str | None = None,
    device: str = "cpu",
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Meta-train as `config` says, in `run_dir`, and return the run.

    The bytes of theta, checkpoints and `metrics.jsonl` depend on the config alone, for any number of workers and any number of resumes, on
    one device type and thread count.

    Raises:
        ConfigError: the run directory is in use or not empty, or the workers cannot be had.
        CheckpointError: there is no usable commit to resume from, or it belongs to another config or version.
        DivergedError: `outer.max_skipped` + 1 outer steps in a row had no finite meta-gradient; the state before them is committed.
    """
    with RunDirectory(run_dir, resume) as directory, StopRequest() as stop:
        meta = Meta(config.hash, versions())
        found = checkpoint.latest(directory.checkpoints) if resume and directory.checkpoints.exists() else None
        if found is not None:
            checkpoint.check_compatible(found, meta)
        state = _start(config) if found is None else Snapshot.read(found)
        with make_pool(workers, address, ShardSetup(config, device), config.outer.threads_per_worker, device) as pool:
            if found is None:
                directory.write_config(config.to_yaml())
            else:
                _log.warning(
                    "resuming after outer step %d of %d; at most %d were lost",
                    found.step,
                    config.outer.steps,
                    config.checkpoint.every_steps,
                )
            loop = _Loop(config, directory, pool, state, meta)
            try:
                loop.run(stop, progress)
            finally:
                loop.close()
        artifact, change = directory.artifact, None
        if loop.step >= config.outer.steps:
            learner = make_learner(config)
            start = learner.init_theta(config.seed)
            with fixed_threads(config.outer.threads_per_worker):
                change = meta_loss_change(learner, start, loop.update.theta, config.tasks, device)
            seconds = sum(row["worker_s"] for row in read_rows(directory.timing))
            export(config, loop.update.theta, change, loop.totals["inner_steps"], seconds / 3600, artifact)
            plot_run(read_rows(directory.metrics), directory.plots)
        return Run(directory.path, artifact, len(loop.quarantined), change is None, change)


def _start(config: Config) -> Snapshot:
    theta = make_learner(config).init_theta(config.seed)
    shards = len(shard_sources(config))
    return Snapshot(0, theta, {}, [None] * shards, [None] * shards, totals={"inner_steps": 0, "skipped": 0, "skipped_in_a_row": 0})


class _Loop:
    """The state of a run between two outer steps, and the step."""

    def __init__(self, config: Config, directory: RunDirectory, pool: Pool, state: Snapshot, meta: Meta) -> None:
        self.config, self.directory, self.pool, self.meta = config, directory, pool, meta
        self.families = [source.family.name for source in shard_sources(config)]
        self.update = OuterUpdate(state.theta, config.outer.optimizer, config.outer.steps)
        if state.outer:
            self.update.load(state.theta, state.outer)
        self.step, self.after, self.quarantined = state.step, list(state.after), list(state.quarantined)
        self.totals = dict(state.totals)
        # What a lost shard is rebuilt from: its committed state, and the thetas of its estimates since.
        self.committed = (list(state.shards), list(state.after))
        self.replay: list[list[tuple[int, Shared[Theta]]]] = [[] for _ in self.families]
        self.metrics = MetricsWriter(directory.metrics, state.rows.get("metrics", 0))
        self.timing = MetricsWriter(directory.timing, state.rows.get("timing", 0))

    def close(self) -> None:
        self.metrics.close()
        self.timing.close()

    def run(self, stop: StopRequest, progress: Progress | None) -> None:
        steps, every = self.config.outer.steps, self.config.checkpoint.every_steps
        committed = self.step
        while self.step < steps and not stop.requested:
            begin = time.monotonic()
            row = self.advance()
            if self.step % every == 0 or self.step == steps:
                self.commit()
                committed = self.step
            if progress is not None:
                rate = row["inner_steps"] / max(1e-9, time.monotonic() - begin)
                progress("outer step", self.step, steps, {"meta-loss": row["loss"], "inner steps/s": rate})
        if committed != self.step:
            self.commit()

    def active(self) -> list[int]:
        """Return the shards of this outer step: all, or the next `shards_per_step` in turn, of those not given up."""
        left = [shard for shard in range(len(self.families)) if shard not in self.quarantined]
        count = min(self.config.outer.shards_per_step or len(left), len(left))
        return sorted(left[(self.step * count + i) % len(left)] for i in range(count))

    def recover(self, item: WorkItem, reason: Reason) -> WorkItem:
        """Return the item with all that a worker without the shard needs."""
        shard = item.work_id
        states, _ = self.committed
        replay = tuple(self.replay[shard])
        work = ShardWork(item.payload.theta, self.after[shard], CatchUp(states[shard], replay))
        return WorkItem(item.outer_step, shard, item.attempt + 1, work)

    def advance(self) -> dict[str, Any]:
        """Make one outer step and write its row; return it."""
        begin = time.monotonic()
        theta = self.pool.share(self.update.theta)
        items = [WorkItem(self.step, shard, 0, ShardWork(theta, self.after[shard])) for shard in self.active()]
        results = self.pool.run(items, self.recover)
        estimates: dict[int, MetaGradient] = {}
        for result in results:
            shard = result.item.work_id
            if result.error is not None:
                self.give_up(result)
                continue
            estimates[shard] = result.value
            self.after[shard] = self.step
            self.replay[shard].append((self.step, theta))
        usable = {shard: e.grad for shard, e in estimates.items() if all(torch.isfinite(g).all() for g in e.grad.values())}
        if usable:
            numbers = self.update.apply(self.step, usable)
            self.totals["skipped_in_a_row"] = 0
        else:
            numbers = {"grad_norm": math.nan, "clipped_frac": math.nan, "lr": math.nan}
            self.totals["skipped"] += 1
            self.totals["skipped_in_a_row"] += 1
        inner_steps = sum(e.inner_steps for e in estimates.values())
        self.totals["inner_steps"] += inner_steps
        row = {"step": self.step + 1, **self.losses(estimates), **numbers, "dropped_shards": len(estimates) - len(usable)}
        row |= {"nonfinite_rows": sum(e.nonfinite for e in estimates.values()), "diverged": sum(e.diverged for e in estimates.values())}
        row |= {"quarantined": len(self.quarantined), "skipped": self.totals["skipped"], "inner_steps": inner_steps}
        self.step += 1
        self.metrics.append(row)
        worker_s = sum(result.seconds for result in results)
        self.timing.append({"step": self.step, "seconds": time.monotonic() - begin, "worker_s": worker_s})
        if self.totals["skipped_in_a_row"] > self.config.outer.max_skipped or not self.active():
            self.commit()
            raise DivergedError(
                f"no usable meta-gradient in {self.totals['skipped_in_a_row']} outer steps in a row (outer.max_skipped="
                f"{self.config.outer.max_skipped}), {len(self.quarantined)} of {len(self.families)} shards given up; lower"
                f" outer.optimizer.lr or outer.estimator.sigma; see {self.directory.metrics}"
            )
        return row

    def losses(self, estimates: dict[int, MetaGradient]) -> dict[str, Any]:
        """Return the mean loss over shards, its standard error over pairs, and the mean by family."""
        if not estimates:
            return {"loss": math.nan, "loss_se": math.nan, "families": {}}
        by_family: dict[str, list[float]] = {}
        for shard, estimate in estimates.items():
            by_family.setdefault(self.families[shard], []).append(estimate.loss)
        count = len(estimates)
        se = math.sqrt(sum(e.loss_se**2 for e in estimates.values())) / count
        families = {name: sum(values) / len(values) for name, values in by_family.items()}
        return {"loss": sum(e.loss for e in estimates.values()) / count, "loss_se": se, "families": families}

    def give_up(self, result: WorkResult) -> None:
        self.quarantined.append(result.item.work_id)
        self.timing.append({"step": self.step, "quarantined": result.item.work_id, "error": result.error, "worker_s": 0.0})
        reason = (result.error or "").strip().splitlines()
        _log.warning("shard %d is given up after outer step %d: %s", result.item.work_id, self.step, reason[-1] if reason else "unknown")

    def commit(self) -> None:
        """Fetch what shards changed since the last commit, and write a checkpoint."""
        states, after = self.committed
        states = list(states)
        changed = [s for s, step in enumerate(self.after) if step != after[s] and s not in self.quarantined]
        items = [WorkItem(self.step, shard, 0, ShardWork(None, self.after[shard])) for shard in changed]
        for result in self.pool.run(items, self.recover):
            if result.error is None:
                states[result.item.work_id] = result.value
            else:
                self.give_up(result)
        # A shard that was given up stays as it was last committed.
        self.after = [after[s] if s in self.quarantined else step for s, step in enumerate(self.after)]
        snapshot = Snapshot(
            self.step,
            self.update.theta,
            self.update.state(),
            list(self.after),
            states,
            list(self.quarantined),
            dict(self.totals),
            {"metrics": self.metrics.commit(), "timing": self.timing.commit()},
        )
        keep = Keep(last=self.config.checkpoint.keep_last)
        checkpoint.save(self.directory.checkpoints, self.step, snapshot.files(self.config), self.meta, keep)
        self.committed = (states, list(self.after))
        self.replay = [[] for _ in self.families]
