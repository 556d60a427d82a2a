"""Compare how a hypergradient tower moves a rate (additive, multiplicative, cosine) with no tower at all, on tasks of meta_valid.

python scripts/compare_updates.py [--bases sgd adam] [--steps 400] [--seeds 5]
"""

import argparse
import sys

import torch

from metaopt import inner, tasks
from metaopt.errors import MetaoptError
from metaopt.evaluation.rate_robustness import tower_of
from metaopt.learners.hypergradients.towers import UPDATES

FAMILIES = (
    "digits_mlp",
    "quadratic",
    "mnist1d_mlp",
    "tabular_regression",
    "digits_autoencoder",
    "faces_mlp",
    "digits_log_autoencoder",
    "tabular_classification",
)


def main() -> int:
    """Print a table of mean normalised held-out losses after the last step, a row an update; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", nargs="+", default=["sgd", "adam"])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        problems = {}
        for name in arguments.families:
            family = tasks.get(name)
            problems[name] = family.build(family.sample(family.templates("meta_valid")[0], 0, (arguments.steps, arguments.steps)))
        print(f"| | {' | '.join(problems)} | mean [95 % over seeds] |\n|---|{'---:|' * (len(problems) + 1)}")
        for base in arguments.bases:
            for update in ("none", *UPDATES):
                learner = tower_of(base, 0) if update == "none" else tower_of(base, 1, update=update)
                seeds = list(range(arguments.seeds))
                runs = [inner.run(learner, {}, [task] * len(seeds), seeds, arguments.steps, arguments.steps) for task in problems.values()]
                found = torch.stack([run.eval_loss[-1] for run in runs]).double()
                picks = torch.randint(arguments.seeds, (2000, *found.shape), generator=torch.Generator().manual_seed(0))
                means = found.expand(2000, -1, -1).gather(2, picks).mean((1, 2))
                low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
                cells = " | ".join(f"{value:.3f}" for value in found.mean(1).tolist())
                print(f"| {base}, {update} | {cells} | {float(found.mean()):.3f} [{low:.3f}, {high:.3f}] |", flush=True)
    except MetaoptError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
