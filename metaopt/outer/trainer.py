"""A whole run of meta-training: from a config to a run directory with an artifact, begun or resumed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from metaopt.cluster import make_pool, versions
from metaopt.cluster.pool import fixed_threads
from metaopt.config import Config
from metaopt.learners.hypergradients.schedule import ScheduledLearner
from metaopt.outer import checkpoint
from metaopt.outer.checkpoint import Meta
from metaopt.outer.export import Chosen, export
from metaopt.outer.loop import Loop
from metaopt.outer.metrics import read_metrics, read_rows
from metaopt.outer.plots import plot_run
from metaopt.outer.prediction import predict
from metaopt.outer.run_directory import RunDirectory
from metaopt.outer.schedule_plot import plot_schedule
from metaopt.outer.shards import ShardSetup, check_buildable, make_learner, shard_sources
from metaopt.outer.signals import StopRequest
from metaopt.outer.snapshot import Snapshot
from metaopt.outer.turns import measured_costs
from metaopt.outer.validation import Change
from metaopt.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "train"]

_PREDICTION_S = 3.0  # time to spend on the prediction
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a call of `train` left behind.

    Attributes:
        path: the run directory.
        artifact: the artifact's folder; exists unless `stopped`.
        quarantined: shards and validation templates given up.
        stopped: a signal ended the run early; it can be resumed.
        change: meta-loss on fixed held-out particles, before and after; None if `stopped`.
        chosen: what validation chose as the artifact; None without validation.
        ended_early: outer steps done when validation ended the run, None if it made all its steps.
    """

    path: Path
    artifact: Path
    quarantined: int
    stopped: bool
    change: Change | None
    chosen: Chosen | None = None
    ended_early: int | None = None

    @cached_property
    def metrics(self) -> "pd.DataFrame":
        """One row an outer step; those of validations are in `validations`."""
        return read_metrics(self.path / "metrics.jsonl", "step")

    @cached_property
    def validations(self) -> "pd.DataFrame":
        """One row a validation, of the outer steps done by then."""
        return read_metrics(self.path / "metrics.jsonl", "validation")

    @property
    def sentences(self) -> tuple[str, ...]:
        """What there is to say to people at the end."""
        said = []
        if self.ended_early is not None:
            said.append(f"ended early after outer step {self.ended_early}: validation saw no improvement beyond its standard error")
        if (chosen := self.chosen) is not None:
            interval = f"[{chosen.low:.4g}, {chosen.high:.4g}]"
            said.append(f"validation chose the {chosen.kind} theta after outer step {chosen.step}, loss {chosen.loss:.4g} {interval}")
        if (change := self.change) is not None:
            interval = f"{change.difference:+.3g} [{change.low:+.3g}, {change.high:+.3g}]"
            said.append(f"meta-loss on held-out particles: {change.before:.4g} at the start, {change.after:.4g} now, change {interval}")
        return tuple(said)


def train(
    config: Config,
    run_dir: Path,
    workers: int = 0,
    address: str | None = None,
    device: str = "cpu",
    resume: bool = False,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> Run:
    """Meta-train as `config` says, in `run_dir`, and return the run.

    The bytes of theta, checkpoints and `metrics.jsonl` depend on the config alone, for any number of workers and any number of resumes, on
    one device type and thread count. `announce` gets one line on the time and memory that a new run on this machine will take, measured
    before its first step.

    Raises:
        ConfigError: the run directory is in use or not empty, the workers cannot be had, or the estimator cannot work with the learner.
        CheckpointError: there is no usable commit to resume from, or it belongs to another config or version.
        DivergedError: `outer.max_skipped` + 1 outer steps in a row had no finite meta-gradient; the state before them is committed.
    """
    check_buildable(config, device)
    with RunDirectory(run_dir, resume) as directory, StopRequest() as stop:
        meta = Meta(config.hash, versions())
        found = checkpoint.latest(directory.checkpoints) if resume and directory.checkpoints.exists() else None
        if found is not None:
            checkpoint.check_compatible(found, meta)
        state = _start(config, device) if found is None else Snapshot.read(found)
        with make_pool(workers, address, ShardSetup(config, device), config.outer.threads_per_worker, device) as pool:
            if found is None:
                directory.write_config(config.to_yaml())
                if announce is not None and address is None:
                    announce(predict(config, workers, device, _PREDICTION_S).sentence())
            else:
                _log.warning(
                    "resuming after outer step %d of %d; at most %d were lost",
                    found.step,
                    config.outer.steps,
                    config.checkpoint.every_steps,
                )
            loop, change = Loop(config, directory, pool, state, meta), None
            try:
                loop.run(stop, progress)
                if loop.finished:
                    change = loop.change(make_learner(config).init_theta(config.seed))
            finally:
                loop.close()
        chosen = Chosen.of(loop.selection)
        if change is not None:
            seconds = sum(row["worker_s"] for row in read_rows(directory.timing))
            export(config, loop.result, change, loop.step, loop.totals["inner_steps"], seconds / 3600, directory.artifact, chosen)
            plot_run(read_rows(directory.metrics), directory.plots)
            if isinstance(learner := make_learner(config), ScheduledLearner):
                plot_schedule(learner, loop.result, directory.plots)
        early = loop.step if loop.finished and loop.step < config.outer.steps else None
        return Run(directory.path, directory.artifact, loop.lost, change is None, change, chosen, early)


def _start(config: Config, device: str) -> Snapshot:
    theta = make_learner(config).init_theta(config.seed)
    nothing = [None] * len(shard_sources(config))
    totals = {"inner_steps": 0, "skipped": 0, "skipped_in_a_row": 0}
    with fixed_threads(config.outer.threads_per_worker):
        costs = measured_costs(config, device)
    return Snapshot(0, theta, {}, list(nothing), list(nothing), totals=totals, costs=costs)
