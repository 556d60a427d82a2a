"""The record of learner runs: which jobs an evaluation consists of, and what their curves are filed under.

Tasks of a suite that share program, horizon and kinds run as one vectorised program, and inner seeds come in whole blocks. Which tasks make
a group is a matter of the suite alone, not of what is known already or of who runs it: the same bytes come out for any number of workers,
for fewer seeds, and when an evaluation is started again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from metaopt import tasks
from metaopt.baselines import Curves, code_version, evaluation_seeds, seed_blocks
from metaopt.baselines.store import Store, user_cache
from metaopt.baselines.tuning import SEED_BLOCK
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.runs import group_run
from metaopt.evaluation.runs.fingerprint import fingerprint
from metaopt.evaluation.runs.group_run import GroupJob
from metaopt.evaluation.runs.jobs import Wanted
from metaopt.evaluation.tables.rows import ScoredTask
from metaopt.tasks import TaskSpec
from metaopt.tasks.number_shifts import is_shifted

__all__ = ["THREADS", "Group", "RunsKey", "groups", "learner_jobs", "run_store", "task_curves"]

THREADS = 1  # sums depend on it: fixed, so that any number of workers gives the same bytes
MOST_TASKS = 8  # of one program: 40 runs, about as many as a search of baselines makes at once

Group = tuple[ScoredTask, ...]


@dataclass(frozen=True)
class RunsKey:
    """Everything that determines the curves of one job.

    Attributes:
        learner: its fingerprint, which covers the code of the runner.
        specs: tasks of the group.
        seeds: inner seeds of each.
        device_type: where they ran.
    """

    learner: str
    specs: tuple[TaskSpec, ...]
    seeds: tuple[tuple[int, ...], ...]
    device_type: str

    def to_json(self) -> str:
        """Return the canonical JSON text of the key, code of the tasks and version of torch included."""
        return self._text

    @cached_property
    def _text(self) -> str:
        content = {
            "learner": self.learner,
            "tasks": [asdict(spec) for spec in self.specs],
            "seeds": self.seeds,
            "code": [code_version(spec.family, is_shifted(spec.values)) for spec in self.specs],
            "torch": str(torch.__version__),
            "device": self.device_type,
            "threads": THREADS,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    def kept(self, curves: Curves) -> Curves:
        """Return what the store gives back for these curves."""
        return curves.stored()


def run_store() -> Store:
    """Return the user's store of learner runs: `$METAOPT_CACHE/runs`, by default `~/.cache/metaopt/runs`."""
    return Store((user_cache("runs"),))


def groups(scored: Sequence[ScoredTask]) -> list[Group]:
    """Return a suite's tasks in groups that run as one program, each in the order of names; at most `MOST_TASKS` in one."""
    alike: dict[Any, list[ScoredTask]] = {}
    for task in sorted(scored, key=lambda task: task.name):
        built = tasks.build(task.spec)
        numbers = tuple(sorted((name, value.dtype, value.shape) for name, value in built.numbers.items()))
        alike.setdefault((built.program, task.spec.horizon, task.kinds, numbers), []).append(task)
    return [tuple(members[i : i + MOST_TASKS]) for members in alike.values() for i in range(0, len(members), MOST_TASKS)]


def learner_jobs(candidate: Candidate, chosen: Sequence[Group], count: int, device: str) -> list[Wanted]:
    """Return the jobs of a candidate, blocks of seeds fastest: on every group that it can run on, with at least `count` seeds."""
    learner = fingerprint(candidate.learner, candidate.theta, group_run.__name__)
    who = candidate.name if candidate.meta_seed == 0 else f"{candidate.name} (meta-seed {candidate.meta_seed})"
    wanted = []
    for group in chosen:
        if candidate.kind not in group[0].kinds:
            continue
        specs = tuple(task.spec for task in group)
        where = group[0].name if len(group) == 1 else f"{group[0].name} and {len(group) - 1} more"
        for block in seed_blocks(count):
            first, end = block * SEED_BLOCK, (block + 1) * SEED_BLOCK
            seeds = tuple(evaluation_seeds(spec, first, end) for spec in specs)
            wanted.append(
                Wanted(
                    label=f"{who} on {where}, seeds {first} to {end - 1}",
                    job=GroupJob(candidate.learner, candidate.theta, specs, seeds, device),
                    work=specs[0].horizon * len(specs) * SEED_BLOCK,
                    key=None if learner is None else RunsKey(learner, specs, seeds, torch.device(device).type),
                )
            )
    return wanted


def task_curves(group: Group, blocks: Sequence[Curves | str], count: int) -> Mapping[str, Curves | str]:
    """Return the curves of each task of a group by name, on the first `count` seeds; where a block failed, its reason.

    Args:
        group: tasks, as in the job.
        blocks: what the job of each block of seeds gave, in order.
        count: seeds wanted, at most those of the blocks.
    """
    done = [curves for curves in blocks if not isinstance(curves, str)]
    if len(done) < len(blocks):
        reason = next(reason for reason in blocks if isinstance(reason, str))
        return {task.name: reason for task in group}
    own = {task.name: slice(i * SEED_BLOCK, (i + 1) * SEED_BLOCK) for i, task in enumerate(group)}
    return {name: Curves.join([curves.runs(part) for curves in done]).runs(slice(count)) for name, part in own.items()}
