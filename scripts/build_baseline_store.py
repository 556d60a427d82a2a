"""Compute the baseline curves that ship with the package, reusing what is there and fresh, and remove what is stale.

python scripts/build_baseline_store.py [--workers N] [SUITE ...]
"""

import argparse
import sys
import tempfile

from metaopt.baselines import Store
from metaopt.baselines.store import BUNDLED
from metaopt.evaluation import evaluate


def main() -> int:
    """Build the store of the given suites; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="*", default=["quick"], metavar="SUITE")
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    store = Store((BUNDLED,))
    for suite in arguments.suites:
        with tempfile.TemporaryDirectory() as folder:
            report = evaluate("sgd", suite, out=folder, workers=arguments.workers, device="cpu", progress=show, store=store)
            print(f"\n{report.text()}")
    removed = store.prune()
    print(f"{len(list(BUNDLED.glob('*.safetensors')))} files in {BUNDLED}, {removed} stale ones removed")
    return 0


def show(what: str, done: int, total: int, *_: object) -> None:
    """Write one line of progress over the last one."""
    print(f"\r{what}: {done}/{total}   ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
