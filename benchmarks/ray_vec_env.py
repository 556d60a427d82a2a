"""Time of a vector step of `RayVecEnv` above the work inside it.

    python benchmarks/ray_vec_env.py [--workers 2] [--envs 2] [--work-ms 20] [--steps 300] [--busy] [--json]

Each environment works for so long at every step, asleep or busy, and answers with what a hyperparameter policy sees: 161 inputs, 64 for
the critic, 12 numbers of info. An actor works for its environments one after the other. Run it on an idle machine; busy actors need a core
each.
"""

import argparse
import functools
import json
import math
import statistics
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from metaopt.cluster.ray_vec_env import RayVecEnv

WARMUP_STEPS = 20
NVEC = [10, 7, 3, 3, 3, 3, 5, 3, 3]


class Work(gymnasium.Env[Any, Any]):
    """Takes `work_ms` for a step, by the clock; episodes have 64 steps."""

    def __init__(self, work_ms: float, busy: bool) -> None:
        self.work_s, self.busy = work_ms / 1e3, busy
        self.observation_space = spaces.Dict(
            {"pi": spaces.Box(-20, 20, (161,), np.float32), "v": spaces.Box(-np.inf, np.inf, (64,), np.float32)}
        )
        self.action_space = spaces.MultiDiscrete(NVEC)
        self.observation = {"pi": np.zeros(161, np.float32), "v": np.zeros(64, np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return self.observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        end = time.perf_counter() + self.work_s
        if not self.busy:
            time.sleep(self.work_s)
        while time.perf_counter() < end:  # asleep ones too: a sleep may end early, never the work
            pass
        self.steps += 1
        return self.observation, 0.0, self.steps == 64, False, {f"number_{index}": 0.5 for index in range(12)}


def overheads_ms(workers: int, envs: int, work_ms: float, steps: int, busy: bool) -> list[float]:
    """Return for each step the milliseconds above the work of the actor that holds most environments."""
    venv = RayVecEnv(functools.partial(Work, work_ms, busy), envs, workers)
    try:
        venv.reset()
        actions, times = np.zeros((envs, len(NVEC)), dtype=np.int64), []
        for _ in range(WARMUP_STEPS + steps):
            begin = time.perf_counter()
            venv.step(actions)
            times.append((time.perf_counter() - begin) * 1e3)
    finally:
        venv.close()
    return [found - work_ms * math.ceil(envs / workers) for found in times[WARMUP_STEPS:]]


def main() -> None:
    """Print the median and the spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--envs", type=int, default=2)
    parser.add_argument("--work-ms", type=float, default=20.0, help="of one environment's step")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--busy", action="store_true", help="work on a core instead of sleeping")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = overheads_ms(arguments.workers, arguments.envs, arguments.work_ms, arguments.steps, arguments.busy)
    deciles = statistics.quantiles(found, n=10)
    row = {
        "workers": arguments.workers,
        "envs": arguments.envs,
        "median_ms": statistics.median(found),
        "p10_ms": deciles[0],
        "p90_ms": deciles[-1],
    }
    if arguments.json:
        print(json.dumps(row))
    else:
        print(
            f"{arguments.envs} environments on {arguments.workers} actors, {arguments.work_ms:g} ms of work each:"
            f" {row['median_ms']:.2f} ms a vector step above it [10 to 90 %: {row['p10_ms']:.2f}, {row['p90_ms']:.2f}]"
        )


if __name__ == "__main__":
    main()
