"""A whole run of policy training: from a config to a run directory with an artifact, begun or resumed."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from metaopt.cluster import make_pool, versions
from metaopt.config import PolicyConfig
from metaopt.outer import checkpoint
from metaopt.outer.checkpoint import Meta
from metaopt.outer.metrics import read_metrics, read_rows
from metaopt.outer.ppo.export import export, last_rewards
from metaopt.outer.ppo.loop import PolicyLoop
from metaopt.outer.ppo.plots import plot_policy_run
from metaopt.outer.ppo.snapshot import PolicySnapshot
from metaopt.outer.ppo.worker import CollectSetup
from metaopt.outer.ppo.worlds import ControlWorld, World
from metaopt.outer.run_directory import RunDirectory
from metaopt.outer.signals import StopRequest
from metaopt.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PolicyRun", "train"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PolicyRun:
    """What a training of a policy left behind.

    Attributes:
        path: the run directory.
        artifact: the artifact's folder; exists unless `stopped`.
        quarantined: groups of episodes given up.
        stopped: a signal ended the run early; it can be resumed.
        reward: mean reward of the last tenth of the outer steps, with its 95 % interval; None if `stopped`.
    """

    path: Path
    artifact: Path
    quarantined: int
    stopped: bool
    reward: tuple[float, float, float] | None

    @cached_property
    def metrics(self) -> "pd.DataFrame":
        """One row an outer step."""
        return read_metrics(self.path / "metrics.jsonl")

    @property
    def sentences(self) -> tuple[str, ...]:
        """What there is to say to people at the end."""
        if self.reward is None:
            return ()
        mean, low, high = self.reward
        return (f"mean reward of sampled actions on training tasks, last tenth of the run: {mean:.3g} [{low:.3g}, {high:.3g}]",)


def train(
    config: PolicyConfig,
    run_dir: Path,
    workers: int = 0,
    address: str | None = None,
    device: str = "cpu",
    resume: bool = False,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    world: World | None = None,
) -> PolicyRun:
    """Train a policy as `config` says, in `run_dir`, and return the run.

    In lock-step collection the bytes of the policy, checkpoints and `metrics.jsonl` depend on the config alone, for any number of workers
    and any number of resumes, on one device type and thread count. Asynchronous collection promises what `max_staleness` says, and that
    `metrics.jsonl` names the groups of every update in their order.

    Args:
        device: where updates are computed; episodes are played on CPUs.
        world: what to train in; None for the one that the config means.

    Raises:
        ConfigError: the run directory is in use or not empty, or the workers or the environment cannot be had.
        CheckpointError: there is no usable commit to resume from, or it belongs to another config or version.
        DivergedError: `outer.max_skipped` + 1 outer steps in a row had no usable update; the state is committed.
    """
    world, outer = world or ControlWorld(config), config.outer
    with RunDirectory(run_dir, resume) as directory, StopRequest() as stop:
        meta = Meta(config.hash, versions())
        found = checkpoint.latest(directory.checkpoints) if resume and directory.checkpoints.exists() else None
        if found is not None:
            checkpoint.check_compatible(found, meta)
        state = None if found is None else PolicySnapshot.read(found)
        with make_pool(workers, address, CollectSetup(config, world), outer.threads_per_worker) as pool:
            if found is None:
                directory.write_config(config.to_yaml())
                if announce is not None:
                    groups = (
                        f"{outer.groups_per_step} groups" if outer.decisions_per_step is None else f"{outer.decisions_per_step} decisions"
                    )
                    announce(f"{outer.steps} outer steps of {groups}, {outer.group_runs} episodes a group")
            else:
                every = config.checkpoint.every_steps
                _log.warning("resuming after outer step %d of %d; at most %d were lost", found.step, outer.steps, every)
            loop = PolicyLoop(config, world, directory, pool, state, meta, device)
            try:
                begin = time.monotonic()
                unscored = world.prepare(pool, progress, lambda: stop.requested)
                if found is None:
                    loop.timing.append({"step": 0, "seconds": time.monotonic() - begin, "unscored_tasks": unscored, "worker_s": 0.0})
                loop.run(stop, progress)
            finally:
                loop.close()
        reward = None
        if loop.finished:
            rows = read_rows(directory.metrics)
            seconds = sum(row["worker_s"] for row in read_rows(directory.timing))
            export(config, world, loop.ppo.averaged, rows, seconds / 3600, directory.artifact)
            plot_policy_run(rows, directory.plots)
            reward = last_rewards(rows)
        return PolicyRun(directory.path, directory.artifact, loop.totals["quarantined"], reward is None, reward)
