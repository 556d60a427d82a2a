"""The outer loop itself: shards estimate meta-gradients, theta follows, and every few steps all of it is validated and committed."""

import logging
import math
import time
from dataclasses import replace
from typing import Any

import torch

from metaopt.cluster import Pool, Reason, Shared, WorkItem, WorkResult
from metaopt.config import Config
from metaopt.errors import DivergedError
from metaopt.estimators import MetaGradient
from metaopt.learners.update_rules import Theta
from metaopt.outer import checkpoint
from metaopt.outer.average import ThetaAverage
from metaopt.outer.checkpoint import Keep, Meta
from metaopt.outer.metrics import MetricsWriter
from metaopt.outer.phases import Phase, joined, phase_of, phases_of
from metaopt.outer.rows import step_row, validation_row
from metaopt.outer.run_directory import RunDirectory
from metaopt.outer.selection import Selection
from metaopt.outer.shards import CatchUp, ShardWork, shard_sources
from metaopt.outer.signals import StopRequest
from metaopt.outer.snapshot import Snapshot
from metaopt.outer.turns import Turns
from metaopt.outer.update import OuterUpdate
from metaopt.outer.validation import Change, change_between, measure_all, report_jobs, selection_jobs
from metaopt.progress import Progress

__all__ = ["Loop"]

_log = logging.getLogger(__name__)


class Loop:
    """The state of a run between two outer steps, and the step."""

    def __init__(self, config: Config, directory: RunDirectory, pool: Pool, state: Snapshot, meta: Meta) -> None:
        self.config, self.directory, self.pool, self.meta = config, directory, pool, meta
        sources = shard_sources(config)
        self.families = [source.family.name for source in sources]
        self.costs = state.costs
        self.turns = Turns(config, sources, state.costs)
        self.turns.balance(pool)
        self.phases, self.names = phases_of(config), list(state.theta)
        self.step, self.quarantined, self.totals = state.step, list(state.quarantined), dict(state.totals)
        self.after: list[int | None]
        self.committed: tuple[list[dict[str, Any] | None], list[int | None]]
        self.enter(phase_of(self.phases, state.step), state.theta)
        if state.outer:
            self.update.load(self.phase.split(state.theta)[0], state.outer)
        if self.average is not None and state.average is not None:
            self.average.load(state.average)
        self.after = list(state.after)
        # What a lost shard is rebuilt from: its committed state, and the thetas of its estimates since.
        self.committed = (list(state.shards), list(state.after))
        self.jobs, self.unreported = selection_jobs(config), 0
        self.selection = Selection.of(None if config.validation is None else config.validation.patience, state.selection)
        self.metrics = MetricsWriter(directory.metrics, state.rows.get("metrics", 0))
        self.timing = MetricsWriter(directory.timing, state.rows.get("timing", 0))
        self.why = "unknown"  # what the last piece of work that was given up said

    def enter(self, phase: Phase, theta: Theta) -> None:
        """Begin a phase from a theta: nothing but theta, the counters and the shards given up is left of the one before."""
        trained, frozen = phase.split(theta)
        self.phase, self.frozen = phase, frozen
        self.shared_frozen = self.pool.share(frozen) if frozen else None
        self.update = OuterUpdate(trained, phase.optimizer, phase.stop - phase.start)
        section = self.config.outer.average
        self.average = None if section is None else ThetaAverage(section.decay)
        self.average_from = phase.start + (0.0 if section is None else section.start_frac * (phase.stop - phase.start))
        nothing: list[Any] = [None] * len(self.families)
        self.after = list(nothing)
        self.committed = (list(nothing), list(nothing))
        self.replay: list[list[tuple[int, Shared[Theta]]]] = [[] for _ in self.families]

    @property
    def theta(self) -> Theta:
        """The current meta-parameters, a copy."""
        return joined(self.names, self.update.theta, self.frozen)

    @property
    def candidates(self) -> dict[str, Theta]:
        """What could be exported now, the first one without validation: the average of theta if there is one, and the last theta."""
        if self.average is None:
            return {"last": self.theta}
        return {"average": joined(self.names, self.average.value(self.update.theta), self.frozen), "last": self.theta}

    @property
    def result(self) -> Theta:
        """What a finished run exports: the best theta by validation, else the first candidate."""
        return self.selection.best_theta or next(iter(self.candidates.values()))

    @property
    def finished(self) -> bool:
        """Whether all outer steps are done, or validation has ended the run."""
        return self.step >= self.config.outer.steps or self.selection.exhausted

    def close(self) -> None:
        """Commit and close the files of rows."""
        self.metrics.close()
        self.timing.close()

    def run(self, stop: StopRequest, progress: Progress | None) -> None:
        """Make the outer steps that are left, until the last one, the end of patience, or a signal; what was done is committed."""
        steps, every = self.config.outer.steps, self.config.checkpoint.every_steps
        committed = self.step
        if self.validate():  # the start, or what a stop had no time for
            self.commit()
        while not self.finished and not stop.requested:
            begin = time.monotonic()
            row = self.advance()
            numbers = {"meta-loss": row["loss"], "inner steps/s": row["inner_steps"] / max(1e-9, time.monotonic() - begin)}
            if (not stop.requested and self.validate()) or self.step % every == 0 or self.step == steps:
                self.commit()
                committed = self.step
            if progress is not None:
                progress("outer step", self.step, steps, numbers)
        if committed != self.step:
            self.commit()

    def active(self) -> list[int]:
        """Return the shards of this outer step, of those not given up."""
        return self.turns.shards(self.step, [shard for shard in range(len(self.families)) if shard not in self.quarantined])

    def item(self, shard: int, theta: Shared[Theta] | None) -> WorkItem:
        """Return the work of a shard at this outer step: an estimate at `theta`, or without one its state."""
        return WorkItem(self.step, shard, 0, ShardWork(theta, self.after[shard], None, self.phase.index, self.shared_frozen))

    def recover(self, item: WorkItem, reason: Reason) -> WorkItem:
        """Return the item with all that a worker without the shard needs."""
        shard = item.work_id
        catch_up = CatchUp(self.committed[0][shard], tuple(self.replay[shard]))
        return WorkItem(item.outer_step, shard, item.attempt + 1, replace(item.payload, catch_up=catch_up))

    def advance(self) -> dict[str, Any]:
        """Make one outer step and write its row; return it."""
        begin = time.monotonic()
        if self.step >= self.phase.stop:
            self.enter(phase_of(self.phases, self.step + 1), self.theta)
        theta = self.pool.share(self.update.theta)
        results = self.pool.run([self.item(shard, theta) for shard in self.active()], self.recover)
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
            numbers = self.update.apply(self.step - self.phase.start, usable)
            self.totals["skipped_in_a_row"] = 0
            if self.average is not None and self.step >= self.average_from:
                self.average.add(self.update.theta)
        else:
            numbers = {"grad_norm": math.nan, "clipped_frac": math.nan, "lr": math.nan}
            self.totals["skipped"] += 1
            self.totals["skipped_in_a_row"] += 1
        counts = {"dropped_shards": len(estimates) - len(usable), "quarantined": len(self.quarantined), "skipped": self.totals["skipped"]}
        if len(self.phases) > 1:
            counts["phase"] = self.phase.index
        if self.config.outer.curriculum:
            counts["stage"] = self.config.outer.stage_at(self.step)
        row = step_row(self.step + 1, estimates, self.families, numbers, **counts)
        self.totals["inner_steps"] += row["inner_steps"]
        self.step += 1
        self.metrics.append(row)
        worker_s = sum(result.seconds for result in results)
        self.timing.append({"step": self.step, "seconds": time.monotonic() - begin, "worker_s": worker_s})
        if self.totals["skipped_in_a_row"] > self.config.outer.max_skipped or not self.active():
            self.commit()
            if not self.active():
                raise DivergedError(
                    f"all {len(self.families)} shards were given up, the last one by {self.why}; see {self.directory.timing}"
                )
            raise DivergedError(
                f"no usable meta-gradient in {self.totals['skipped_in_a_row']} outer steps in a row (outer.max_skipped="
                f"{self.config.outer.max_skipped}), {len(self.quarantined)} of {len(self.families)} shards given up; lower"
                f" outer.optimizer.lr or outer.estimator.sigma; see {self.directory.metrics}"
            )
        return row

    def validate(self) -> bool:
        """Measure the candidates on the fixed particles if it is time to, and write the row; return whether it was."""
        section = self.config.validation
        due = section is not None and (self.step % section.every_steps == 0 or self.step == self.config.outer.steps)
        if section is None or not due or self.selection.validated == self.step:
            return False
        begin = time.monotonic()
        candidates = self.candidates
        jobs = [job for job in self.jobs if job.name not in self.selection.given_up]
        measured, results = measure_all(self.pool, self.step, jobs, list(candidates.values()))
        self.selection.given_up += self.failed(results)
        losses = {kind: {name: value.loss[k] for name, value in measured.items()} for k, kind in enumerate(candidates)}
        numbers = self.selection.consider(self.step, candidates, losses)
        self.metrics.append(validation_row(self.step, measured, list(candidates), numbers, len(self.selection.given_up)))
        worker_s = sum(result.seconds for result in results)
        self.timing.append({"step": self.step, "validation": True, "seconds": time.monotonic() - begin, "worker_s": worker_s})
        return True

    def change(self, start: Theta) -> Change:
        """Return how the meta-loss changed from a theta to the result, on particles that have chosen nothing."""
        measured, results = measure_all(self.pool, self.step, report_jobs(self.config), [start, self.result])
        self.unreported = len(self.failed(results))
        return change_between(measured)

    @property
    def lost(self) -> int:
        """How many pieces of work were given up: shards, templates of validation, templates of the report."""
        return len(self.quarantined) + len(self.selection.given_up) + self.unreported

    def failed(self, results: list[WorkResult]) -> list[str]:
        """Return the names of the validation jobs that failed for good, after noting them."""
        names = []
        for result in results:
            if result.error is not None:
                names.append(result.item.payload.job.name)
                self.note(f"validation on {names[-1]}", result)
        return names

    def give_up(self, result: WorkResult) -> None:
        """Leave out the shard of a result from now on."""
        self.quarantined.append(result.item.work_id)
        self.note(f"shard {result.item.work_id}", result)

    def note(self, what: str, result: WorkResult) -> None:
        """Write down what will not be tried again, and why."""
        self.timing.append({"step": self.step, "quarantined": what, "error": result.error, "worker_s": 0.0})
        reason = (result.error or "").strip().splitlines()
        self.why = reason[-1] if reason else "unknown"
        _log.warning("%s is given up after outer step %d: %s", what, self.step, self.why)

    def commit(self) -> None:
        """Fetch what shards changed since the last commit, and write a checkpoint."""
        states, after = self.committed
        states = list(states)
        changed = [s for s, step in enumerate(self.after) if step != after[s] and s not in self.quarantined]
        for result in self.pool.run([self.item(shard, None) for shard in changed], self.recover):
            if result.error is None:
                states[result.item.work_id] = result.value
            else:
                self.give_up(result)
        # A shard that was given up stays as it was last committed.
        self.after = [after[s] if s in self.quarantined else step for s, step in enumerate(self.after)]
        snapshot = Snapshot(
            self.step,
            self.theta,
            self.update.state(),
            list(self.after),
            states,
            list(self.quarantined),
            dict(self.totals),
            {"metrics": self.metrics.commit(), "timing": self.timing.commit()},
            dict(self.costs),
            None if self.average is None else self.average.state(),
            None if self.config.validation is None else self.selection.state(),
        )
        keep = Keep(last=self.config.checkpoint.keep_last)
        meta = replace(self.meta, score=self.selection.last_score if self.selection.validated == self.step else None)
        checkpoint.save(self.directory.checkpoints, self.step, snapshot.files(self.config), meta, keep)
        self.committed = (states, list(self.after))
        self.replay = [[] for _ in self.families]
