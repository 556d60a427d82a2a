"""What mixing families costs: inner steps a second of six families alone and in turn, in one process.

    python benchmarks/mixture.py [--families quadratic,...] [--pairs 16] [--window 20] [--windows 8] [--repeats 5] [--compile] [--json]

Every family makes equally many steps, so that without any cost of mixing the rate of the mixture would be the harmonic mean of the rates
alone; the ratio to it is wanted to be at least 0.70. With --compile, programs compiled after the warm-up are counted too: there must be
none, whatever tasks follow. Run it on an idle machine.
"""

import argparse
import json
import statistics
import time

import torch
from torch._dynamo.utils import counters

from metaopt import learners, tasks
from metaopt.estimators import ESTIMATORS, Estimator
from metaopt.learners.update_rules import Theta
from metaopt.tasks.source import TaskSource

FAMILIES = ("quadratic", "digits_mlp", "mnist_conv", "digits_autoencoder", "tabular_regression", "text_transformer")
WANTED_RATIO = 0.70
WARMUP_WINDOWS = 3


def shard(family: str, rule: str, pairs: int, window: int, compiled: bool) -> Estimator:
    """Return PES on the family's first template for meta-training; runs are short, so that new tasks begin all the time."""
    known = tasks.get(family)
    source = TaskSource(known, known.templates("meta_train")[0], (window, 10 * window), seed=0)
    learner = learners.get(rule, schedule="warmup_cosine")
    return ESTIMATORS["pes"](window=window).build(learner, source, pairs, 0, "cpu", compiled)


def steps_per_second(shards: list[Estimator], theta: Theta, first: int, windows: int) -> float:
    """Return the rate over `windows` estimates of each of the shards, taken in turn."""
    begin = time.perf_counter()
    steps = sum(each.estimate(theta, first + i).inner_steps for i in range(windows) for each in shards)
    return steps / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--rule", default="mlp")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--window", type=int, default=20)
    parser.add_argument("--windows", type=int, default=8, help="estimates of a family in one repeat")
    parser.add_argument("--repeats", type=int, default=5, help="median over this many; alone and mixed take turns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = args.families.split(",")
    theta = learners.get(args.rule).init_theta(0)
    shards = {name: shard(name, args.rule, args.pairs, args.window, args.compile) for name in names}
    for each in shards.values():
        for step in range(WARMUP_WINDOWS):
            each.estimate(theta, step)
    graphs = counters["stats"]["unique_graphs"]
    alone: dict[str, list[float]] = {name: [] for name in names}
    mixed: list[float] = []
    done = WARMUP_WINDOWS
    for _ in range(args.repeats):
        for name, each in shards.items():
            alone[name].append(steps_per_second([each], theta, done, args.windows))
        mixed.append(steps_per_second(list(shards.values()), theta, done + args.windows, args.windows))
        done += 2 * args.windows
    rates = {name: statistics.median(values) for name, values in alone.items()}
    ideal = statistics.harmonic_mean(list(rates.values()))
    result = {
        **{f"alone {name}": round(rate) for name, rate in rates.items()},
        "harmonic_mean": round(ideal),
        "mixed": round(statistics.median(mixed)),
        "ratio": round(statistics.median(mixed) / ideal, 3),
        "wanted_ratio": WANTED_RATIO,
        "compiled_before": graphs,
        "compiled_again": counters["stats"]["unique_graphs"] - graphs,
        "threads": args.threads,
        "repeats": args.repeats,
    }
    if args.json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        print("\n".join(f"{name:{width}}  {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
