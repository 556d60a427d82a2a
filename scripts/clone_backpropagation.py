"""Train a per-weight cell to imitate backpropagation, and say how near it comes on networks that it has not seen.

python scripts/clone_backpropagation.py OUT [--start random] [--updates 4000] [--seed 0] [--state 16] [--message 8]
"""

import argparse
import sys
from pathlib import Path

import safetensors.torch

from metaopt import seeds
from metaopt.errors import MetaoptError
from metaopt.learners.per_weight.cell import CellSpec
from metaopt.learners.per_weight.cloning import CloneCell, CloneTraining, clone, clone_network, hand_set_theta, update_cosine

_NETWORKS = ((8, (6,), 3), (20, (16,), 5), (12, (), 4), (8, (6, 6), 3))  # inputs, hidden units, classes


def main(arguments: list[str] | None = None) -> int:
    """Train, measure and save theta; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="file for theta, safetensors")
    parser.add_argument("--start", choices=("random", "hand_set"), default="random", help="weights to begin with; default: %(default)s")
    parser.add_argument("--updates", type=int, default=CloneTraining.updates, help="of theta, 0 for none; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--state", type=int, default=16, help="numbers in an edge's h and c; default: %(default)s")
    parser.add_argument("--message", type=int, default=8, help="channels; default: %(default)s")
    given = parser.parse_args(arguments)
    try:
        # gates that begin where the clone needs them, and stored numbers large enough for Adam to hit
        cell = CloneCell(CellSpec(given.state, given.message, input_bias=0.0, forget_bias=8.0), size=0.5)
        training = CloneTraining(updates=given.updates)
        start = hand_set_theta(cell, training.step, training.ticks) if given.start == "hand_set" else None
        theta, losses = clone(cell, given.seed, training, start)
    except MetaoptError as error:
        print(f"clone_backpropagation: {error}", file=sys.stderr)
        return 2
    if losses:
        print(f"loss {sum(losses[:100]) / len(losses[:100]):.4f} at first, {sum(losses[-100:]) / len(losses[-100:]):.4f} at last")
    for inputs, hidden, classes in _NETWORKS:
        cosine = update_cosine(
            cell, theta, clone_network(inputs, classes, hidden, training.ticks), seeds.key("clone", "unseen", inputs), 10
        )
        print(f"{inputs}-{'-'.join(map(str, hidden))}-{classes}: cosine with the gradient {cosine.mean():.4f}, lowest {cosine.min():.4f}")
    safetensors.torch.save_file(theta, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
