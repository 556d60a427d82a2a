"""Measure what tuned Adam reaches on each family: the lines of `metaopt/tasks/floors.py`.

python scripts/measure_floors.py [--steps N] [FAMILY ...]

Only meta_train templates are looked at, where a family has any.
"""

import argparse
import sys

from metaopt import tasks
from metaopt.baselines.floors import FLOOR_STEPS, floor_of, reached


def main() -> int:
    """Print a line for each template to stderr and the table's line of each family to stdout; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="default: all")
    parser.add_argument("--steps", type=int, default=FLOOR_STEPS)
    arguments = parser.parse_args()
    for name in arguments.families or tasks.names():
        family = tasks.get(name)
        rows = []
        for template in family.templates("meta_train") or family.templates("meta_test"):
            row = reached(family, template, arguments.steps)
            found = f"{row.first:.3g} -> {row.heldout:.3g} (train {row.train:.3g}) at {row.rate:g}"
            print(f"{name} {template}: {found}", file=sys.stderr, flush=True)
            rows.append(row)
        print(f'    "{name}": {floor_of(rows)},', flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
