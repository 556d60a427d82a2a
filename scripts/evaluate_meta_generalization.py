"""Evaluate learners on many suites, one report each, and draw everything together; it can be stopped and started again.

python scripts/evaluate_meta_generalization.py LEARNER ... [--suites quick,width,...|all|axes] [--baselines A,B] [--seeds N] [--out DIR]

A suite whose report is there and was made of the same inputs is kept. One that fails does not stop the others: it is named at the end, and
the exit status is 3. Bad input is 2, before anything runs.
"""

import argparse
import sys
from pathlib import Path

import metaopt
from metaopt.cli.output import ProgressDisplay
from metaopt.errors import MetaoptError
from metaopt.evaluation.sweep import Sweep, evaluate_suites

DONE, BAD_INPUT, INCOMPLETE = 0, 2, 3


def main(arguments: list[str] | None = None) -> int:
    """Evaluate as the arguments say; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learners", nargs="+", metavar="LEARNER", help="artifact, NAME=PATH,PATH,... (meta-seeds), baseline, or RULE@start")
    parser.add_argument("--suites", default="all", help="names or YAML paths separated by commas; all, or axes; default: all")
    parser.add_argument("--baselines", help="names separated by commas; default: each suite's own")
    parser.add_argument("--seeds", type=int, help="inner runs a task; default: each suite's own")
    parser.add_argument("--out", type=Path, default=Path("reports/meta-generalization"), help="folder; default: %(default)s")
    parser.add_argument("--workers", type=int, default=0, help="0: this process; N: a Ray of N workers; default: 0")
    parser.add_argument("--address", help="a running Ray cluster instead")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:i or mps; default: auto")
    given = parser.parse_args(arguments)
    options = {name: getattr(given, name) for name in ("baselines", "seeds", "workers", "address", "device")}
    try:
        with ProgressDisplay() as progress:
            sweep = evaluate_suites(given.learners, given.suites.split(","), given.out, metaopt.evaluate, **options, progress=progress)
    except MetaoptError as error:
        print(f"evaluate_meta_generalization: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    say(sweep)
    return INCOMPLETE if sweep.failures or sweep.quarantined else DONE


def say(sweep: Sweep) -> None:
    """Print what there is now, and what failed."""
    print(f"{len(sweep.finished)} suites evaluated, {len(sweep.kept)} kept, {len(sweep.failures)} failed")
    if sweep.quarantined:
        print(f"{sweep.quarantined} jobs were given up; their runs count as failures", file=sys.stderr)
    for suite, reason in sweep.failures.items():
        print(f"failed: {suite}: {reason}", file=sys.stderr)
    if sweep.overview is not None:
        print(f"overview: {sweep.overview.path / 'overview.html'}")


if __name__ == "__main__":
    sys.exit(main())
