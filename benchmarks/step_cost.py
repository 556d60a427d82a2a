"""What one optimizer step costs: milliseconds, ratio to `torch.optim.AdamW` (foreach and fused), bytes of state a parameter.

    python benchmarks/step_cost.py [--optimizers celo2-base,mlp] [--sizes small,large] [--device cpu] [--threads 2] [--compile] [--json]

An optimizer is a bundled artifact, a path, or the name of an update rule. Run it on an idle machine.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import nn

from metaopt.artifacts import list_artifacts
from metaopt.learners.update_rules import RULES, get_rule
from metaopt.memory import keep_freed_memory
from metaopt.optim import LearnedOptimizer

# A residual MLP as in a transformer's feed-forward half: (width, blocks), each block width -> 4 width -> width with a norm.
SIZES = {"small": (64, 3), "medium": (148, 4), "large": (320, 6)}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


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


def learned(name: str, compiled: bool) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """Return a factory of the drop-in optimizer for an update rule's name, an artifact's name or its path."""
    return lambda params: LearnedOptimizer(params, get_rule(name) if name in RULES else name, lr=1e-3, compile=compiled)


def main() -> None:
    """Print the table, or JSON rows."""
    bundled = [row["name"] for row in list_artifacts() if row["kind"] == "update_rule"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--optimizers", default=",".join([*bundled, "mlp", "celo2_base", "learnable_adam", "small_fc", "celo2", "nn_adam", "star", "adamw"])
    )
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7, help="median over this many")
    parser.add_argument("--min-s", type=float, default=0.3, help="shortest round, seconds")
    parser.add_argument("--compile", action="store_true", help="learned optimizers through torch.compile")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    makes: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
        "torch AdamW foreach": lambda params: torch.optim.AdamW(params, foreach=True),
        "torch AdamW fused": lambda params: torch.optim.AdamW(params, fused=True),
        **{name: learned(name, args.compile) for name in args.optimizers.split(",") if name},
    }
    rows = []
    for size in args.sizes.split(","):
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
