"""Resident memory of meta-training between two outer steps, in one process.

    python benchmarks/memory.py [--first 50] [--last 500] [--json]

Runs the quickstart's configuration with small shards, commits and all, in a temporary directory.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from metaopt import train

SMALL = [
    "outer.shard_particles=2",
    "tasks=[{family: quadratic, shards: 1, horizon: [25, 60]}, {family: digits_mlp, shards: 1, horizon: [25, 60]}]",
]


def resident_bytes() -> int:
    """Return this process's resident set size (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=50)
    parser.add_argument("--last", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seen: dict[int, int] = {}

    def note(what: str, done: int, total: int, *_: object) -> None:
        if done in (arguments.first, arguments.last):
            seen[done] = resident_bytes()

    with tempfile.TemporaryDirectory() as folder:
        train("quickstart", [*SMALL, f"outer.steps={arguments.last}"], run_dir=Path(folder) / "run", progress=note)
    first, last = seen[arguments.first], seen[arguments.last]
    result = {
        "first_mib": round(first / 2**20, 1),
        "last_mib": round(last / 2**20, 1),
        "growth_percent": round(100 * (last / first - 1), 2),
    }
    print(json.dumps(result) if arguments.json else "\n".join(f"{name:15} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
