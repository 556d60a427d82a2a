"""Train from eight decades of first learning rates, with plain optimizers and under towers of hypergradients.

python scripts/robust_learning_rate.py [--bases sgd adam] [--heights 0 1 2 3 5] [--seeds 10] [--out docs/images]
"""

import argparse
import sys
from pathlib import Path

import torch

from metaopt.errors import MetaoptError
from metaopt.evaluation.rate_robustness import RATES, RateSweep, digits_task, draw_sweeps, sweep_rates, sweeps_table, tower_of


def main() -> int:
    """Print a table a base optimizer, write the figure; exit status 1 if a learned rate is not positive or not a number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", nargs="+", default=["sgd", "adam"])
    parser.add_argument("--heights", type=int, nargs="+", default=[0, 1, 2, 3, 5], help="levels of the tower; 0 is the plain optimizer")
    parser.add_argument("--link", default="log", help="of the rate and of the rates of levels")
    parser.add_argument("--update", default="additive", help="how rates move")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=690, help="30 epochs")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write robust-learning-rate.png and .svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    panels: dict[str, dict[str, RateSweep]] = {}
    sound = True
    try:
        task = digits_task(arguments.steps)
        for base in arguments.bases:
            panels[base] = {}
            for height in arguments.heights:
                name = f"{height} level{'s' * (height > 1)}" if height else "plain"
                found = sweep_rates(tower_of(base, height, arguments.link, arguments.update), task, RATES, range(arguments.seeds))
                panels[base][name] = found
                sound &= height == 0 or bool(((found.learned > 0) & torch.isfinite(found.learned)).all())
                print(
                    f"{base}, {name}: {int((~found.finite).sum())} of {found.finite.numel()} runs not finite", file=sys.stderr, flush=True
                )
            print(f"{base}: test error in %, mean of {arguments.seeds} seeds [95 %]\n\n{sweeps_table(panels[base])}\n")
    except MetaoptError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for form, content in draw_sweeps(panels).items():
            (arguments.out / f"robust-learning-rate.{form}").write_bytes(content)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
