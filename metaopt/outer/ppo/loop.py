"""The outer loop of policy training: groups of episodes are collected, the policy follows, and every few steps all of it is committed."""

import logging
import time
from typing import Any

from metaopt.cluster import Pool, WorkResult
from metaopt.cluster.pool import fixed_threads
from metaopt.config import PolicyConfig
from metaopt.errors import DivergedError
from metaopt.outer import checkpoint
from metaopt.outer.checkpoint import Keep, Meta
from metaopt.outer.metrics import MetricsWriter
from metaopt.outer.ppo.collectors import make_collector
from metaopt.outer.ppo.rows import mean_reward, policy_row
from metaopt.outer.ppo.snapshot import PolicySnapshot
from metaopt.outer.ppo.stages import Stages
from metaopt.outer.ppo.state import PPOState
from metaopt.outer.ppo.worlds import World
from metaopt.outer.run_directory import RunDirectory
from metaopt.outer.signals import StopRequest
from metaopt.progress import Progress

__all__ = ["PolicyLoop"]

_log = logging.getLogger(__name__)


class PolicyLoop:
    """The state of a run between two outer steps, and the step.

    Args:
        state: to continue from; None begins.
        device: where updates are computed.
    """

    def __init__(
        self,
        config: PolicyConfig,
        world: World,
        directory: RunDirectory,
        pool: Pool,
        state: PolicySnapshot | None,
        meta: Meta,
        device: str = "cpu",
    ) -> None:
        self.config, self.directory, self.pool, self.meta = config, directory, pool, meta
        self.ppo, self.stages = PPOState(config, world, device), Stages(config.outer)
        self.collector = make_collector(config, world, pool)
        self.step, self.totals = 0, {"inner_steps": 0, "decisions": 0, "quarantined": 0, "skipped": 0, "skipped_in_a_row": 0}
        rows: dict[str, int] = {}
        if state is not None:
            self.ppo.load(state.ppo)
            self.stages.load(state.stages)
            self.collector.load(state.collector)
            self.step, self.totals, rows = state.step, dict(state.totals), state.rows
        self.metrics = MetricsWriter(directory.metrics, rows.get("metrics", 0))
        self.timing = MetricsWriter(directory.timing, rows.get("timing", 0))
        self.why = "nothing that was played could be used"

    @property
    def finished(self) -> bool:
        """Whether all outer steps are done."""
        return self.step >= self.config.outer.steps

    def close(self) -> None:
        """Leave behind what is under way; commit and close the files of rows."""
        self.collector.close()
        self.metrics.close()
        self.timing.close()

    def run(self, stop: StopRequest, progress: Progress | None) -> None:
        """Make the outer steps that are left, until the last one or a signal; what was done is committed."""
        steps, committed = self.config.outer.steps, self.step
        while not self.finished and not stop.requested:
            begin = time.monotonic()
            row = self.advance()
            numbers = {"reward": row["reward"], "inner steps/s": row["inner_steps"] / max(1e-9, time.monotonic() - begin)}
            if self.step % self.config.checkpoint.every_steps == 0 or self.step == steps:
                self.commit()
                committed = self.step
            if progress is not None:
                progress("outer step", self.step, steps, numbers)
        if committed != self.step:
            self.commit()

    def advance(self) -> dict[str, Any]:
        """Make one outer step and write its row; return it."""
        begin = time.monotonic()
        stage = self.stages.index
        collected = self.collector.collect(self.step, self.pool.share(self.ppo.weights), self.stages.stage, self.give_up)
        collected_at = time.monotonic()
        statistics = None
        if collected.played:
            with fixed_threads(self.config.outer.threads_per_worker):
                statistics = self.ppo.learn(self.step, [played.episodes for played in collected.played])
        self.totals["skipped_in_a_row"] = 0 if statistics is not None else self.totals["skipped_in_a_row"] + 1
        self.totals["skipped"] += statistics is None
        self.step += 1
        self.stages.after(self.step, mean_reward(collected))
        counts = {"stage": stage, "skipped": self.totals["skipped"], "quarantined": self.totals["quarantined"]}
        row = policy_row(self.step, collected, statistics, self.config.outer.collection == "async", **counts)
        for name in ("inner_steps", "decisions"):
            self.totals[name] += row[name]
        self.metrics.append(row)
        now = time.monotonic()
        times = {"seconds": now - begin, "collect_s": collected_at - begin, "update_s": now - collected_at, "worker_s": collected.worker_s}
        self.timing.append({"step": self.step, **times})
        if self.totals["skipped_in_a_row"] > self.config.outer.max_skipped:
            self.commit()
            raise DivergedError(
                f"no usable update in {self.totals['skipped_in_a_row']} outer steps in a row (outer.max_skipped="
                f"{self.config.outer.max_skipped}), {self.totals['quarantined']} groups given up, the last one by {self.why}; see"
                f" {self.directory.timing}"
            )
        return row

    def give_up(self, result: WorkResult) -> None:
        """Take note of a group that failed for good: the step goes on without it."""
        reason = (result.error or "").strip().splitlines()
        self.why = reason[-1] if reason else "unknown"
        self.totals["quarantined"] += 1
        what = f"group {result.item.work_id} of outer step {result.item.outer_step}"
        self.timing.append({"step": self.step, "quarantined": what, "error": result.error, "worker_s": 0.0})
        _log.warning("%s is given up: %s", what, self.why)

    def commit(self) -> None:
        """Write a checkpoint."""
        snapshot = PolicySnapshot(
            self.step,
            self.ppo.state(),
            self.stages.state(),
            self.collector.state(),
            dict(self.totals),
            {"metrics": self.metrics.commit(), "timing": self.timing.commit()},
        )
        keep = Keep(last=self.config.checkpoint.keep_last)
        checkpoint.save(self.directory.checkpoints, self.step, snapshot.files(self.config), self.meta, keep)
