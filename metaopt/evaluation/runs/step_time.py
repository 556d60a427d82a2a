"""How long one training step takes under a learner: forward, backward and update of a single model, as a user would run it.

Vectorised runs share their overhead over many models; a wall-clock comparison needs the step of one.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from metaopt import seeds, tasks
from metaopt.cluster.pool import fixed_threads
from metaopt.learners import Learner
from metaopt.tasks import TaskSpec

__all__ = ["step_seconds"]

BLOCKS = 7
MIN_BLOCK_S = 0.02  # far above the resolution of the clock and a thread's time slice
WARMUP_STEPS = 3
BATCHES = 32  # that a block goes through, again and again


@torch.no_grad()
def step_seconds(
    learner: Learner,
    theta: Mapping[str, Tensor],
    spec: TaskSpec,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the median time of one step [s] over seven blocks of at least 20 ms, after a warm-up.

    Steps run eagerly, one model alone without `vmap`, with one thread, on batches drawn before. Each block begins at the initial model: one
    that has converged or diverged may have another speed. On an accelerator a block ends when its last kernel has.

    Args:
        learner: any kind.
        theta: its meta-parameters.
        spec: the task.
        device: where the step runs.
        clock: monotonic seconds.
    """
    task = tasks.build(spec).to(device)
    on_device = {name: value.to(device) for name, value in theta.items()}
    key = seeds.key("step time", 0).to(device)
    with fixed_threads(1):
        start = learner.init(on_device, task, key)
        batches = [task.batch(key, torch.tensor(i, device=device)) for i in range(BATCHES)]

        def block(count: int) -> float:
            carry = start
            begin = clock()
            for i in range(count):
                carry, _ = learner.advance(on_device, task, carry, batches[i % BATCHES])
            if torch.device(device).type != "cpu":
                torch.accelerator.synchronize()
            return clock() - begin

        block(WARMUP_STEPS)
        count = 1
        while (seconds := statistics.median(block(count) for _ in range(BLOCKS))) < MIN_BLOCK_S:
            count = max(2 * count, math.ceil(count * MIN_BLOCK_S / seconds) if seconds > 0.0 else 0)
        return seconds / count
