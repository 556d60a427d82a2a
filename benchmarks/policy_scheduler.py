"""What a `PolicyScheduler` adds to a training step of 5 million parameters: milliseconds, and the share of the step.

    python benchmarks/policy_scheduler.py [--model mlp|transformer] [--optimizer adamw] [--intervals 16,64,156,625]
        [--batch 64] [--rounds 7] [--device cpu] [--threads 1] [--clock wall|cpu] [--json]

Two copies of one run take turns, with the scheduler and without, each turn as long as the interval between two decisions, so that it holds
one decision and all measured steps of it. Printed are medians over the rounds. 10,000 steps with 64 decisions make an interval of 156. The
policy is an untrained one of the size that is trained; what it decides is not applied, so that both copies do the same work.

Run it on an idle machine. `--clock cpu` counts the time of this process only, which says something on a busy one too.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metaopt import seeds
from metaopt.artifacts.policy import policy_artifact
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec
from metaopt.memory import keep_freed_memory
from metaopt.optim import PolicyScheduler, UnitlessAdam

LIMIT = 1.02  # largest ratio that we accept at an interval of 156 and above
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-6),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-6, momentum=0.9),
    "unitless_adam": lambda p: UnitlessAdam(p, lr=1e-6),
}


class Reader(nn.Module):
    """Five million parameters: six transformer blocks of width 256 over 64 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(512, 256)
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(256, 512)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.embed(tokens)))
        return out


class Copy:
    """A model with its optimizer, one batch, and perhaps a scheduler."""

    def __init__(self, options: argparse.Namespace, interval: int, scheduled: bool) -> None:
        torch.manual_seed(0)
        if options.model == "mlp":
            sizes = (784, 1536, 1536, 960, 10)
            layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
            self.net: nn.Module = nn.Sequential(*layers[:-1])
            self.x, self.y = torch.randn(options.batch, 784), torch.randint(10, (options.batch,))
        else:
            self.net = Reader()
            self.x, self.y = torch.randint(512, (2, options.batch, 64)).unbind()
        self.net, self.x, self.y = self.net.to(options.device), self.x.to(options.device), self.y.to(options.device)
        self.optimizer = OPTIMIZERS[options.optimizer](self.net.parameters())
        self.interval, self.scheduler = interval, None
        if scheduled:
            artifact = policy_artifact("untrained", PolicyNetwork(PolicySpec(), seeds.key("benchmark")))
            count = options.rounds + 2
            self.scheduler = PolicyScheduler(self.optimizer, artifact, 4 + count * interval, count, dry_run=True)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.net(self.x).flatten(0, -2), self.y.flatten())
            loss.backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step(train_loss=loss)


def compare(options: argparse.Namespace, interval: int) -> dict[str, Any]:
    """Return the medians of both copies at an interval between decisions."""
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    copies = [Copy(options, interval, scheduled) for scheduled in (False, True)]
    times: list[list[float]] = [[], []]
    for copy in copies:
        copy.steps(4 + interval)  # the first decision, and the second
    for _ in range(options.rounds):
        for copy, found in zip(copies, times, strict=True):
            begin = clock()
            copy.steps(interval)
            if options.device != "cpu":
                torch.cuda.synchronize()
            found.append(1000 * (clock() - begin) / interval)
    scheduler = copies[1].scheduler
    assert scheduler is not None
    assert len(scheduler.decision_log) == options.rounds + 2
    plain, scheduled = map(statistics.median, times)
    size = sum(param.numel() for param in copies[0].net.parameters())
    row = {"model": options.model, "optimizer": options.optimizer, "parameters": size, "interval": interval}
    ratios = [b / a for a, b in zip(*times, strict=True)]
    return {**row, "plain_ms": plain, "scheduled_ms": scheduled, "ratio": statistics.median(ratios)}


def main() -> None:
    """Print a row for each interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("mlp", "transformer"), default="mlp")
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="adamw")
    parser.add_argument("--intervals", default="16,64,156,625")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    for interval in map(int, options.intervals.split(",")):
        row = compare(options, interval)
        if options.json:
            print(json.dumps(row), flush=True)
            continue
        times = f"{row['plain_ms']:8.2f} ms plain {row['scheduled_ms']:8.2f} ms scheduled   x {row['ratio']:.3f}"
        late = "   ABOVE THE LIMIT" if interval >= 156 and row["ratio"] > LIMIT else ""
        print(f"{row['model']} {row['optimizer']} {row['parameters'] / 1e6:.2f} M, interval {interval:4d}: {times}{late}", flush=True)


if __name__ == "__main__":
    main()
