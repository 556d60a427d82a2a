"""Inner steps a second of meta-training, beside the machine's own matrix speed.

    python benchmarks/throughput.py [--workload R1] [--repeats 7] [--threads 2] [--eager] [--json]

One step of one particle counts 1; both members of an antithetic pair count. Run it on an idle machine.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass

import torch

from metaopt import learners, tasks
from metaopt.estimators import Evolution
from metaopt.tasks.source import TaskSource

WARMUP_WINDOWS = 3


@dataclass(frozen=True)
class Workload:
    """One shard: `pairs` antithetic pairs of a template under a rule, PES windows of `window` steps."""

    family: str
    template: str
    rule: str
    pairs: int
    window: int
    windows: int  # measured together in one repeat


WORKLOADS = {
    "R1": Workload("digits_mlp", "32-relu-b64", "mlp", pairs=16, window=20, windows=10),  # MLPs 64-32-10, 19 features, hidden 32-32
    "celo2": Workload("digits_mlp", "32-relu-b64", "celo2_base", pairs=16, window=20, windows=10),
}


def matrix_gflops(size: int = 1024, products: int = 20) -> float:
    """Return the speed of float32 matrix products in GFLOP/s, the best of five rounds."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        for _ in range(products):
            left @ right
        times.append(time.perf_counter() - begin)
    return 2 * size**3 * products / min(times[1:]) / 1e9


def steps_per_second(workload: Workload, repeats: int, compiled: bool) -> list[float]:
    """Return the inner steps a second of each repeat."""
    learner = learners.get(workload.rule, schedule="warmup_cosine")
    source = TaskSource(tasks.get(workload.family), workload.template, (100, 1000), seed=0)
    estimator = Evolution("pes", learner, source, workload.pairs, sigma=0.01, window=workload.window, seed=0, compiled=compiled)
    theta = learner.init_theta(0)
    for step in range(WARMUP_WINDOWS):
        estimator.estimate(theta, step)
    rates = []
    for repeat in range(repeats):
        begin = time.perf_counter()
        steps = sum(estimator.estimate(theta, WARMUP_WINDOWS + repeat * workload.windows + i).inner_steps for i in range(workload.windows))
        rates.append(steps / (time.perf_counter() - begin))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=WORKLOADS, default="R1")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", action="store_true", help="do not compile the inner step")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    gflops = matrix_gflops()
    rates = steps_per_second(WORKLOADS[arguments.workload], arguments.repeats, not arguments.eager)
    median = statistics.median(rates)
    result = {
        "workload": arguments.workload,
        "threads": arguments.threads,
        "compiled": not arguments.eager,
        "inner_steps_per_s": round(median),
        "lowest": round(min(rates)),
        "highest": round(max(rates)),
        "repeats": len(rates),
        "matrix_gflops": round(gflops, 1),
        "inner_steps_per_gflop": round(median / gflops, 1),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        print("\n".join(f"{name:{width}}  {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
