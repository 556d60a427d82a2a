"""Compute the baseline curves that ship with the package, reusing what is there and fresh; it can be stopped and started again.

python scripts/build_baseline_store.py [--suite NAME ...] [--trials K] [--baselines A,B] [--workers N] [--out DIR] [--merge DIR] [--prune]
"""

import argparse
import sys
import time
from pathlib import Path

from metaopt import baselines
from metaopt.baselines.build import build, shipped
from metaopt.baselines.store import BUNDLED, Store
from metaopt.errors import MetaoptError
from metaopt.evaluation import load_suite


def main(arguments: list[str] | None = None) -> int:
    """Build the store of the given suites; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", action="append", metavar="NAME", help="bundled name or YAML path; may be given again; default: quick")
    parser.add_argument("--trials", type=int, default=max(baselines.TRIALS), help="largest budget; up to 15 cost the same; default: 15")
    parser.add_argument("--baselines", default=",".join(shipped()), help="names separated by commas; default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="processes; default: 2")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="folder of the store; default: the one in the package")
    parser.add_argument("--merge", type=Path, help="first copy what another store has")
    parser.add_argument("--prune", action="store_true", help="remove what these suites do not need: other tasks, stale code")
    given = parser.parse_args(arguments)
    store, clock = Store((given.out,)), Clock()
    try:
        specs = [spec for suite in given.suite or ["quick"] for spec in load_suite(suite).specs.values()]
        chosen = [baselines.get(name.strip()) for name in given.baselines.split(",")]
        merged = store.merge(given.merge) if given.merge else 0
        built = build(specs, chosen, store, given.trials, given.workers, clock)
    except MetaoptError as error:
        print(f"build_baseline_store: {error}", file=sys.stderr)
        return 2
    removed = store.prune() if given.prune and not built.failures else 0
    files = list(given.out.glob("*.safetensors.gz"))
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"{built.computed} computed, {built.found} found, {merged} merged, {removed} removed")
    print(f"{len(files)} files, {size:.1f} MB in {given.out}")
    for what, reason in sorted(built.failures.items()):
        print(f"failed: {what}: {reason}", file=sys.stderr)
    return 1 if built.failures else 0


class Clock:
    """Writes one line of progress over the last one, with the time that is left if the rest goes as this round went so far."""

    def __init__(self) -> None:
        self.what, self.started, self.last = "", 0.0, time.monotonic()

    def __call__(self, what: str, done: int, total: int, *_: object) -> None:
        """Show how many inner steps of a round are done."""
        if what != self.what:
            self.what, self.started = what, self.last
        self.last = time.monotonic()
        left = (self.last - self.started) * (total - done) / max(done, 1)
        end = "\n" if done >= total else ""
        print(f"\r{what}: {done / max(total, 1):.1%} of {total:,} steps, {left / 60:.0f} min left   ", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
