"""What collection costs above the inner work, and what waiting costs: milliseconds a vector step, and decisions a second on workers.

    python benchmarks/policy_collection.py [--runs 16] [--hidden 128] [--workers 2] [--steps 30] [--json]

The environment does nothing but sleep: 0 s for the first figure, and for the second as long as a group has decisions, so that groups differ
as inner runs do. Lock-step waits for the longest group of an outer step, asynchronous collection for none. Run it on an idle machine;
the median of seven repetitions is told. `--workers 0` leaves the second figure out.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from metaopt.config import PolicyConfig, parse_config
from metaopt.learners.policies.knobs import TABLES
from metaopt.learners.policies.observation import INPUTS
from metaopt.outer.metrics import read_rows
from metaopt.outer.ppo import trainer
from metaopt.outer.ppo.collect import play
from metaopt.outer.ppo.worker import fresh_networks
from metaopt.outer.ppo.worlds import Met
from metaopt.seeds import key, uniform

CONFIG = """
name: benchmark
learner: {{kind: policy, hidden: {hidden}}}
tasks: [{{family: quadratic, horizon: [64, 1000]}}]
outer: {{steps: {steps}, groups_per_step: 8, group_runs: {runs}, decisions: [2, 64], collection: {collection}}}
checkpoint: {{every_steps: 1000}}
"""
REPETITIONS = 7
CRITIC_INPUTS = 60


@dataclass(frozen=True)
class Sleeping:
    """A world and its environment: `pause` seconds a decision."""

    runs: int
    pause: float
    critic_inputs: int = CRITIC_INPUTS

    def make(self) -> "Sleeper":
        return Sleeper(self)

    def draw(self, seed: int, stage: Any) -> SimpleNamespace:
        decisions = int(2 * 32 ** float(uniform(key("benchmark", seed))))
        return SimpleNamespace(family="quadratic", horizon=decisions, decisions=decisions)

    def met(self) -> Met:
        return Met((), {})

    def prepare(self, pool: Any, progress: Any, stopped: Any) -> dict[str, int]:
        return {}


class Sleeper:
    def __init__(self, world: Sleeping) -> None:
        self.world, self.t, self.until = world, 0, 0

    def seen(self) -> dict[str, np.ndarray]:
        return {"pi": np.full((self.world.runs, INPUTS), 0.1, np.float32), "v": np.zeros((self.world.runs, CRITIC_INPUTS), np.float32)}

    def reset(self, *, seed: int, options: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.t, self.until = 0, options["bucket"].decisions
        return self.seen(), {"head_mask": np.ones((self.world.runs, len(TABLES["wide"].nvec)), bool), "decisions": self.until}

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        time.sleep(self.world.pause)
        self.t += 1
        ended = np.full(self.world.runs, self.t == self.until)
        return self.seen(), actions[:, 1] / 10.0 * ended, ended, np.zeros_like(ended), {}


def step_ms(config: PolicyConfig) -> float:
    """Return the median time of a vector step in which the environment does nothing."""
    world = Sleeping(config.outer.group_runs, 0.0)
    group, (network, critic) = world.make(), fresh_networks(config, world)
    bucket, times = SimpleNamespace(family="quadratic", horizon=64, decisions=64), []
    for repetition in range(REPETITIONS + 1):
        begin = time.perf_counter()
        play(group, network, critic, bucket, repetition, 0)
        times.append((time.perf_counter() - begin) / bucket.decisions)
    return 1e3 * statistics.median(times[1:])


def decisions_per_s(config: PolicyConfig, workers: int) -> float:
    """Return decisions over the time of the outer steps, without the first one."""
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(config, Path(folder) / "run", workers=workers, world=Sleeping(config.outer.group_runs, 0.01))
        rows, times = (
            [row for row in read_rows(Path(folder) / "run" / f"{name}.jsonl") if row["step"] > 1] for name in ("metrics", "timing")
        )
    return float(sum(row["decisions"] for row in rows) / sum(row["seconds"] for row in times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 16), ("hidden", 128), ("workers", 2), ("steps", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    configs = {}
    for collection in ("lockstep", "async"):
        text = CONFIG.format(hidden=options.hidden, steps=options.steps, runs=options.runs, collection=collection)
        config = parse_config(text, "benchmark")
        assert isinstance(config, PolicyConfig)
        configs[collection] = config
    row = {"vector_step_ms": step_ms(configs["lockstep"])}
    if options.workers:
        row |= {f"{name}_decisions_per_s": decisions_per_s(config, options.workers) for name, config in configs.items()}
    print(json.dumps(row) if options.json else "\n".join(f"{name} {value:.2f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
