"""What one step of a per-weight network costs beside what it cannot do without: its matrix products and the non-linearities of its gates.

    python benchmarks/vsml_step.py [--features 64] [--classes 10] [--particles 8] [--schedule forward] [--device cpu] [--threads 1]
        [--compile] [--rounds 7] [--json]

The floor is the time of one product [E, N] x [N, 4N], three sigmoids and two hyperbolic tangents of [E, N] a micro-tick, each alone on
tensors that are there, for all E edges of all particles, at the rates of this machine. A step should take at most twice that. Run it on an
idle machine.

Legend: E edges of all particles, N state size.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from metaopt import seeds
from metaopt.inner.step import fresh_carries, training_batches, training_step
from metaopt.learners.per_weight.vsml_learner import VSMLLearner
from metaopt.memory import keep_freed_memory
from metaopt.tasks.families.class_means import ClassMeans
from metaopt.tasks.task import Task, stack_tasks

_LARGEST_RATIO = 2.0


def median_ms(call: Callable[[], object], device: str, rounds: int, min_s: float = 0.05) -> float:
    """Return the median over `rounds` of the time of one call, each round at least `min_s` long."""

    def timed(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    timed(3)
    count = max(1, int(min_s / timed(1)))
    return 1e3 * statistics.median(timed(count) for _ in range(rounds))


def floor_ms(edges: int, state: int, device: str, rounds: int) -> dict[str, float]:
    """Return the times of the product and of the non-linearities of one micro-tick."""
    h, weight = torch.randn(edges, state, device=device), torch.randn(state, 4 * state, device=device)
    gates, c = torch.empty(edges, 4 * state, device=device), torch.empty(edges, state, device=device)
    three, out = torch.randn(edges, 3 * state, device=device), torch.empty(edges, 3 * state, device=device)
    return {
        "product": median_ms(lambda: torch.mm(h, weight, out=gates), device, rounds),
        "sigmoids": median_ms(lambda: torch.sigmoid(three, out=out), device, rounds),
        "tangents": 2 * median_ms(lambda: torch.tanh(h, out=c), device, rounds),
    }


@torch.no_grad()
def step_ms(learner: VSMLLearner, program: ClassMeans, particles: int, device: str, compiled: bool, rounds: int) -> float:
    """Return the time of a step of so many particles."""
    key, a = seeds.key("benchmark"), program.features
    numbers = {"means": seeds.normal(key, (program.classes, a)), "mix": torch.eye(a), "horizon": torch.tensor(100.0)}
    stacked = stack_tasks([Task(program, numbers, {}).to(device)] * particles)
    keys = torch.arange(particles, device=device)
    theta = {name: value.to(device) for name, value in learner.init_theta(0).items()}
    batch = {name: value[0] for name, value in training_batches(stacked, keys, torch.zeros_like(keys), 1).items()}
    carry = fresh_carries(learner, theta, stacked, keys, theta_stacked=False)
    step = training_step(learner, program, False, compiled)
    carry, _, _ = step(theta, stacked.numbers, {}, carry, batch)
    return median_ms(lambda: step(theta, stacked.numbers, {}, carry, batch), device, rounds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("features", 64), ("classes", 10), ("particles", 8), ("threads", 1), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--schedule", choices=("forward", "forward_backward"), default="forward")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    learner = VSMLLearner(schedule=options.schedule)
    edges = options.particles * options.features * options.classes
    sweeps = learner.ticks * (2 if options.schedule == "forward_backward" else 1)
    floor = {name: sweeps * ms for name, ms in floor_ms(edges, learner.state, options.device, options.rounds).items()}
    program = ClassMeans(options.features, options.classes, 1)
    step = step_ms(learner, program, options.particles, options.device, options.compile, options.rounds)
    found = {"edges": edges, "step_ms": step, "floor_ms": sum(floor.values()), **{f"{name}_ms": ms for name, ms in floor.items()}}
    found |= {"ratio": step / found["floor_ms"], "largest_ratio": _LARGEST_RATIO}
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{edges} edges, {sweeps} micro-ticks: step {step:.3f} ms, floor {found['floor_ms']:.3f} ms, ratio {found['ratio']:.2f} (at most 2)"
    )
    print("  " + ", ".join(f"{name} {ms:.3f} ms" for name, ms in floor.items()))


if __name__ == "__main__":
    main()
