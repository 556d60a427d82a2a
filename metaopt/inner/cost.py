"""What one inner step of a bucket costs: seconds, measured on this machine, and bytes, counted.

A bucket is what shares one compiled step: a program under a learner, with a number of particles. Its tasks differ in numbers only, so that
one measurement stands for all of them.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from metaopt.inner.live_bytes import peak_live_bytes, storage_bytes
from metaopt.inner.step import BATCHES_AHEAD, fresh_carries, training_batches, training_step
from metaopt.learners.learner import Learner
from metaopt.tasks.task import Task, stack_tasks

__all__ = ["StepCost", "measure_step", "step_cost"]

_WARMUP = 2


@dataclass(frozen=True)
class StepCost:
    """One step of all 2 N rows of a bucket.

    Attributes:
        seconds: median time of a step, its share of drawing batches included.
        parameters: weights of one inner model.
        kept_bytes: what the rows keep from step to step: carries, copies of theta, numbers.
        batch_bytes: batches drawn ahead.
        working_bytes: most that an eager step holds besides.
    """

    seconds: float
    parameters: int
    kept_bytes: int
    batch_bytes: int
    working_bytes: int

    @property
    def bytes(self) -> int:
        """All of it while the bucket is at work."""
        return self.kept_bytes + self.batch_bytes + self.working_bytes


_costs: dict[tuple[Any, ...], StepCost] = {}


def step_cost(learner: Learner, task: Task, pairs: int, threads: int = 1, device: str = "cpu", compiled: bool = False) -> StepCost:
    """Return the cost of a bucket, measured at the first call in this process; arguments as for `measure_step`."""
    key = (learner, task.program, pairs, threads, device, compiled)
    if key not in _costs:
        _costs[key] = measure_step(learner, task, pairs, threads, device, compiled)
    return _costs[key]


@torch.no_grad()
def measure_step(
    learner: Learner,
    task: Task,
    pairs: int,
    threads: int = 1,
    device: str = "cpu",
    compiled: bool = False,
    repeats: int = 5,
    min_s: float = 0.01,
) -> StepCost:
    """Return the cost of one step of 2 `pairs` rows of the task's bucket: the median of `repeats` timings of at least `min_s` each.

    Args:
        learner: at its initial theta.
        task: any task of the bucket, not stacked, on the CPU.
        pairs: N antithetic pairs, hence 2 N rows.
        threads: torch threads while measuring; the caller's number is restored.
        device: where it runs.
        compiled: time the compiled step, which is compiled first (tens of seconds for a new bucket); bytes are always of the eager one.
        repeats: timings, >= 1.
        min_s: a timing repeats short steps until it is this long.
    """
    rows = 2 * pairs
    tasks = stack_tasks([task.to(device)] * rows)
    keys = torch.arange(rows, dtype=torch.int64, device=device)
    theta = {name: torch.stack([value.to(device)] * rows) for name, value in learner.init_theta(0).items()}
    with _threads(threads):
        carry = fresh_carries(learner, theta, tasks, keys, theta_stacked=True)
        clocks = torch.zeros_like(keys)
        ahead = training_batches(tasks, keys, clocks, BATCHES_AHEAD)
        batch = {name: value[0] for name, value in ahead.items()}
        kept = storage_bytes([carry, theta, tasks.numbers])
        eager = training_step(learner, task.program, True, False)
        working = peak_live_bytes(lambda: eager(theta, tasks.numbers, tasks.shared, carry, batch))
        step = training_step(learner, task.program, True, compiled)

        def steps(count: int) -> None:
            following = carry
            for _ in range(count):
                following, _, _ = step(theta, tasks.numbers, tasks.shared, following, batch)

        seconds = _median_seconds(steps, repeats, min_s, device)
        drawing = _median_seconds(lambda n: [training_batches(tasks, keys, clocks, BATCHES_AHEAD) for _ in range(n)], repeats, 0.0, device)
    parameters = sum(value[0].numel() for value in carry.get("params", {}).values())
    return StepCost(seconds + drawing / BATCHES_AHEAD, parameters, kept, storage_bytes(ahead), working)


def _median_seconds(run: Callable[[int], Any], repeats: int, min_s: float, device: str) -> float:
    """Return the median time of one of the things that `run(count)` does, after a warm-up."""

    def timed(count: int) -> float:
        begin = time.perf_counter()
        run(count)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    timed(_WARMUP)
    once = timed(1)
    count = max(1, round(min_s / max(once, 1e-9)))
    return statistics.median(timed(count) / count for _ in range(repeats))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
