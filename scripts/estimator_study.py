"""Compare all estimators at equal compute, and write the table and the figure of docs/estimators.md.

python scripts/estimator_study.py [--groups G] [--figure docs/images/estimator_study.png] [--budget STEPS]
"""

import argparse
import sys
from pathlib import Path

import torch

from metaopt.estimators import study


def main() -> int:
    """Print one table a subject and draw the figure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=40, help="independent estimators a row")
    parser.add_argument("--budget", type=float, default=1e5, help="plain inner steps at which errors are compared")
    parser.add_argument("--figure", type=Path, default=Path("docs/images/estimator_study.png"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    panels = []
    for subject in (study.balancing(arguments.groups), study.digits(arguments.groups)):
        truth, rows = study.exact(subject), []
        print(f"\n{subject.title}: exact derivative of length {float(truth.norm()):.4g}", flush=True)
        for label in subject.estimators:
            rows.append(study.measure(label, subject, truth))
            print(f"measured {label}", file=sys.stderr, flush=True)
        print(study.table(rows, arguments.budget))
        panels.append((subject, rows))
    print(f"\nwhere runs become unstable:\n{study.stability()}")
    arguments.figure.write_bytes(study.figure(panels, arguments.budget))
    print(f"\n{arguments.figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
