"""What one optimizer step costs: milliseconds, ratio to `torch.optim.AdamW` (foreach and fused), bytes of state a parameter.

    python benchmarks/step_cost.py [--optimizers celo2-base,mlp] [--sizes small,large] [--device cpu] [--threads 2] [--compile] [--json]
    python benchmarks/step_cost.py --towers [--sizes medium,large] [--threads 2] [--batch 256] [--rounds 7] [--json]

An optimizer is a bundled artifact, a path, or the name of an update rule. With `--towers`: what a hypergradient tower of height one over
the learning rate adds to a training step (forward, backward, update) of the same optimizer in `torch.optim`. Run it on an idle machine.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from metaopt.artifacts import list_artifacts
from metaopt.learners.update_rules import RULES, get_rule
from metaopt.memory import keep_freed_memory
from metaopt.optim import HypergradientAdam, HypergradientAdamW, HypergradientRMSProp, HypergradientSGD, LearnedOptimizer

# A residual MLP as in a transformer's feed-forward half: (width, blocks), each block width -> 4 width -> width with a norm.
SIZES = {"small": (64, 3), "medium": (148, 4), "large": (320, 6)}

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
# Plain optimizer, the same under a tower, and the largest ratio of their training steps that we accept. Rates are small: nothing diverges.
TOWERS: dict[str, tuple[Make, Make, float | None]] = {
    "SGD": (lambda p: torch.optim.SGD(p, lr=1e-5), lambda p: HypergradientSGD(p, lr=1e-5), 1.05),
    "SGD momentum": (lambda p: torch.optim.SGD(p, lr=1e-5, momentum=0.9), lambda p: HypergradientSGD(p, lr=1e-5, momentum=0.9), None),
    "Adam": (lambda p: torch.optim.Adam(p, lr=1e-6), lambda p: HypergradientAdam(p, lr=1e-6), 1.15),
    "AdamW": (lambda p: torch.optim.AdamW(p, lr=1e-6), lambda p: HypergradientAdamW(p, lr=1e-6), None),
    "RMSprop": (lambda p: torch.optim.RMSprop(p, lr=1e-6), lambda p: HypergradientRMSProp(p, lr=1e-6), None),
}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


def parameters(size: str, device: str) -> list[nn.Parameter]:
    """Return the parameters of a model of about 0.1, 0.7 or 5 million, with gradients."""
    width, blocks = SIZES[size]
    params = list(nn.ModuleList(Block(width) for _ in range(blocks)).to(device).parameters())
    for place, param in enumerate(params):
        param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(place)).to(device)
    return params


def step_ms(optimizer: torch.optim.Optimizer, device: str, rounds: int, min_s: float) -> float:
    """Return the median over `rounds` of the time of one step, each round at least `min_s` long."""

    def timed(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            optimizer.step()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    timed(2)
    count = max(1, int(min_s / timed(1)))
    return 1e3 * statistics.median(timed(count) for _ in range(rounds))


def state_bytes(optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> float:
    """Return the bytes of state a parameter, the counters apart."""
    tensors = [value for param in params for key, value in optimizer.state[param].items() if key != "step"]
    return sum(value.numel() * value.element_size() for value in tensors) / sum(param.numel() for param in params)


def learned(name: str, compiled: bool) -> Make:
    """Return a factory of the drop-in optimizer for an update rule's name, an artifact's name or its path."""
    return lambda params: LearnedOptimizer(params, get_rule(name) if name in RULES else name, lr=1e-3, compile=compiled)


def training(make: Make, size: str, device: str, batch: int) -> Callable[[int], float]:
    """Return a function that takes `count` training steps of a fresh model and returns their mean time in milliseconds."""
    width, blocks = SIZES[size]
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(width) for _ in range(blocks))).to(device)
    x, y = (torch.randn(batch, width, device=device) for _ in range(2))
    optimizer = make(model.parameters())

    def timed(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start) / count

    return timed


def tower_row(name: str, size: str, device: str, batch: int, rounds: int, min_s: float) -> dict[str, Any]:
    """Return what a tower adds: both run in turns, and the ratio is the median of the rounds' own ratios."""
    plain, tower, limit = TOWERS[name]
    runs = [training(make, size, device, batch) for make in (plain, tower)]
    for run in runs:
        run(3)
    count = max(1, int(1e3 * min_s / runs[0](3)))
    times = [[run(count) for run in (runs if turn % 2 else runs[::-1])][:: 1 if turn % 2 else -1] for turn in range(rounds)]
    ratios = sorted(after / before for before, after in times)
    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    spread = {"lowest": ratios[0], "highest": ratios[-1], "limit": limit}
    return {"optimizer": name, "size": size, "plain_ms": before, "tower_ms": after, "ratio": statistics.median(ratios), **spread}


def print_towers(rows: list[dict[str, Any]], heading: str) -> None:
    """Print the table of towers."""
    print(heading)
    print(f"{'optimizer':<16}{'size':<8}{'plain ms':>10}{'tower ms':>10}{'ratio':>8}{'lowest':>8}{'highest':>9}{'limit':>7}")
    for row in rows:
        numbers = f"{row['plain_ms']:>10.2f}{row['tower_ms']:>10.2f}{row['ratio']:>8.3f}{row['lowest']:>8.3f}{row['highest']:>9.3f}"
        print(f"{row['optimizer']:<16}{row['size']:<8}{numbers}{'' if row['limit'] is None else row['limit']:>7}")


def main() -> None:
    """Print the table, or JSON rows."""
    bundled = [row["name"] for row in list_artifacts() if row["kind"] == "update_rule"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--optimizers", default=",".join([*bundled, "mlp", "celo2_base", "learnable_adam", "small_fc", "celo2", "nn_adam", "star", "adamw"])
    )
    parser.add_argument("--sizes", default=None, help="default: all, or medium,large with --towers")
    parser.add_argument("--towers", action="store_true", help="training steps under hypergradient towers instead")
    parser.add_argument("--batch", type=int, default=256, help="of a training step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7, help="median over this many")
    parser.add_argument("--min-s", type=float, default=0.3, help="shortest round, seconds")
    parser.add_argument("--compile", action="store_true", help="learned optimizers through torch.compile")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    if args.towers:
        sizes = (args.sizes or "medium,large").split(",")
        table = [tower_row(name, size, args.device, args.batch, args.rounds, args.min_s) for size in sizes for name in TOWERS]
        about = {"device": args.device, "threads": args.threads, "batch": args.batch, "torch": torch.__version__, "rounds": args.rounds}
        print(json.dumps(about | {"rows": table})) if args.json else print_towers(table, ", ".join(f"{k} {v}" for k, v in about.items()))
        return
    makes: dict[str, Make] = {
        "torch AdamW foreach": lambda params: torch.optim.AdamW(params, foreach=True),
        "torch AdamW fused": lambda params: torch.optim.AdamW(params, fused=True),
        **{name: learned(name, args.compile) for name in args.optimizers.split(",") if name},
    }
    rows = []
    for size in (args.sizes or ",".join(SIZES)).split(","):
        base: list[float] = []
        for name, make in makes.items():
            params = parameters(size, args.device)
            optimizer = make(params)
            ms = step_ms(optimizer, args.device, args.rounds, args.min_s)
            base = [*base, ms][:2]
            count = sum(param.numel() for param in params)
            row = {"optimizer": name, "parameters": count, "ms": ms, "state_bytes": state_bytes(optimizer, params)}
            rows.append(row | {"to_foreach": ms / base[0], "to_fused": ms / base[-1]})
    if args.json:
        print(
            json.dumps({"device": args.device, "threads": args.threads, "compile": args.compile, "torch": torch.__version__, "rows": rows})
        )
        return
    print(
        f"{args.device}, {args.threads} threads, torch {torch.__version__}{', compiled' if args.compile else ''}, median of {args.rounds}"
    )
    print(f"{'optimizer':<22}{'parameters':>12}{'ms / step':>12}{'x foreach':>11}{'x fused':>10}{'state B':>9}")
    for row in rows:
        ratios = f"{row['to_foreach']:>11.1f}{row['to_fused']:>10.1f}"
        print(f"{row['optimizer']:<22}{row['parameters']:>12,}{row['ms']:>12.3f}{ratios}{row['state_bytes']:>9.1f}")


if __name__ == "__main__":
    main()
