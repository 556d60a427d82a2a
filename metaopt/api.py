"""The Python front door: `metaopt.train` and `metaopt.evaluate`, which the command line calls too.

Everything about the input is checked here before anything is written or any worker starts.
"""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metaopt.config import AnyConfig, Config, PolicyConfig, load_config
from metaopt.config.limits import check_memory, machine_bytes
from metaopt.devices import resolve_device
from metaopt.errors import ConfigError
from metaopt.progress import Progress

if TYPE_CHECKING:
    from metaopt.evaluation import Report
    from metaopt.evaluation.candidates import LearnerLike
    from metaopt.outer.ppo.trainer import PolicyRun
    from metaopt.outer.trainer import Run

__all__ = ["evaluate", "train"]

Overrides = Sequence[str] | Mapping[str, object]


def train(
    config: str | Path | AnyConfig,
    overrides: Overrides = (),
    seed: int | None = None,
    run_dir: str | Path | None = None,
    workers: int = 0,
    address: str | None = None,
    device: str = "auto",
    resume: bool = False,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> "Run | PolicyRun":
    """Meta-train and return the run: its directory, the path of its artifact, and its metrics.

    Args:
        config: path of a YAML file, name of a bundled config, or a loaded one.
        overrides: `{"outer.steps": 50}` or `["outer.steps=50"]`; not with a loaded config.
        seed: replaces the config's seed; not with a loaded config.
        run_dir: where everything is written; None makes `runs/<name>-<seed>-<date>-<time>`. Must be empty or absent unless `resume`.
        workers: 0 runs in this process, N > 0 on N Ray workers.
        address: a running Ray cluster for the workers; None starts a local one that ends with the run.
        device: auto, cpu, cuda, cuda:i or mps.
        resume: continue from the last commit of `run_dir`, or start if there is none.
        progress: called after every outer step.
        announce: called before the first outer step of a new run on this machine with one line: the time and memory that it will take.

    Raises:
        ConfigError: bad input; nothing has been written.
        CheckpointError: `run_dir` is in use, or cannot be resumed with this config.
        DivergedError: too many outer steps in a row had no usable meta-gradient; a checkpoint was written.
        WorkerLostError: workers died more often than their budget allows.
    """
    if isinstance(config, Config | PolicyConfig):
        if overrides or seed is not None:
            raise ConfigError("overrides and seed need a config's name or path, got a loaded one: load it with them")
        loaded: AnyConfig = config
    else:
        loaded = load_config(config, overrides, {"seed": seed})
    chosen = _check_machine(workers, address, device)
    if resume and run_dir is None:
        raise ConfigError("resume needs the run directory to continue, got none: give run_dir (--run-dir)")
    if address is None:
        check_memory(loaded, machine_bytes())
    run_path = Path("runs") / f"{loaded.name}-{loaded.seed}-{time.strftime('%Y%m%d-%H%M%S')}" if run_dir is None else Path(run_dir)

    # After the checks: a misspelt key should not have to wait for it.
    if isinstance(loaded, PolicyConfig):
        from metaopt.outer.ppo import trainer as policy_trainer

        return policy_trainer.train(loaded, run_path, workers, address, chosen, resume, progress, announce)
    from metaopt.outer import trainer

    return trainer.train(loaded, run_path, workers, address, chosen, resume, progress, announce)


def evaluate(
    learners: "LearnerLike | Sequence[LearnerLike]",
    suite: str = "quick",
    baselines: str | Sequence[str] | None = None,
    seeds: int | None = None,
    out: str | Path | None = None,
    workers: int = 0,
    address: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> "Report":
    """Return the report of learners on tasks that none of them met, next to tuned baselines.

    Args:
        learners: artifacts (loaded, paths or names), `NAME=PATH,PATH,...` (several meta-trainings of one method), names of baselines, or
            presets without weights; at least one.
        suite: name of a bundled suite, or path of a YAML file.
        baselines: names; None for those of the suite.
        seeds: inner runs a task, >= 1; None for the suite's number.
        out: folder of the report's files; None makes `reports/<suite>-<date>-<time>`.
        workers: as for `train`, like `address` and `device`; the results do not depend on it.
        address: see `workers`.
        device: see `workers`.
        progress: called after every piece of work.

    Raises:
        ConfigError: unknown name or bad value; nothing has been written.
        UnsafeArtifactError: an artifact that is missing, damaged, or from a newer schema.
        WorkerLostError: a baseline could not be computed.
    """
    chosen = _check_machine(workers, address, device)

    from metaopt import evaluation

    return evaluation.evaluate(learners, suite, baselines, seeds, out, workers, address, chosen, progress)


def _check_machine(workers: int, address: str | None, device: str) -> str:
    """Return the resolved device after checking that the workers can be had at all."""
    if workers < 0:
        raise ConfigError(f"workers must be >= 0, got {workers}")
    if address is not None and workers == 0:
        raise ConfigError(f"address {address!r} needs workers >= 1, got 0: give the number of workers to start on that cluster")
    if workers > 0 and importlib.util.find_spec("ray") is None:
        raise ConfigError(f"workers={workers} needs ray, which is not installed: pip install 'ray[default]>=2.54', or use 0 workers")
    return str(resolve_device(device))
