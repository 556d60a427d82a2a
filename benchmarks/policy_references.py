"""What the references of a policy's reward cost: seconds of `references` for some tasks of each family, and how many can score.

    python benchmarks/policy_references.py [--tasks 20] [--families quadratic,digits_mlp,...] [--horizon 64 1000] [--workers 2] [--json]

The store is an empty folder that is removed afterwards. Run it on an idle machine; `--workers 0` computes in this process.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from metaopt import tasks
from metaopt.baselines.budget_losses import BudgetSetup
from metaopt.baselines.reference import AGAINST, degenerate, references
from metaopt.baselines.store import Store
from metaopt.cluster import make_pool
from metaopt.tasks import TaskSpec

FAMILIES = "quadratic,digits_mlp,tabular_classification,tabular_regression,text_rnn"


def specs_of(family: str, count: int, horizon: tuple[int, int]) -> list[TaskSpec]:
    """Return tasks of a family, one training template after another."""
    found = tasks.get(family)
    templates = found.templates("meta_train")
    return [found.sample(templates[i % len(templates)], 1000 + i, horizon) for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20, help="of each family")
    parser.add_argument("--families", default=FAMILIES)
    parser.add_argument("--horizon", type=int, nargs=2, default=(64, 1000))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, make_pool(options.workers, None, BudgetSetup()) as pool:
        store = Store((Path(folder),))
        for family in options.families.split(","):
            specs = specs_of(family, options.tasks, tuple(options.horizon))
            begin = time.perf_counter()
            found = references(specs, store, pool)
            row = {"family": family, "tasks": len(specs), "steps": sum(spec.horizon for spec in specs), "s": time.perf_counter() - begin}
            rows.append({**row, **{against: len(specs) - sum(degenerate(found, against).values()) for against in AGAINST}})
            if not options.json:
                print(
                    "  ".join(f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}" for name, value in rows[-1].items())
                )
    total = sum(row["s"] for row in rows)
    print(json.dumps({"rows": rows, "s": total}) if options.json else f"all: {total:.1f} s with {options.workers} workers")


if __name__ == "__main__":
    main()
