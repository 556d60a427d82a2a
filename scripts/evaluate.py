"""Evaluate learners from Python: what `metaopt evaluate` does, as a starting point for your own script.

python scripts/evaluate.py runs/mine/artifact celo2-base --suite quick --out reports/mine
"""

import argparse
import sys

import metaopt
from metaopt.errors import MetaoptError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learners", nargs="+", help="artifacts (path or name), baselines, or presets without weights")
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--out")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    try:
        report = metaopt.evaluate(args.learners, suite=args.suite, seeds=args.seeds, out=args.out, workers=args.workers, device=args.device)
    except MetaoptError as error:
        print(error, file=sys.stderr)
        return 2
    print(report.text())
    print("report:", report.path / "report.html")
    return 3 if report.quarantined else 0


if __name__ == "__main__":
    sys.exit(main())
