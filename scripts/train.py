"""Meta-train from Python: what `metaopt train` does, as a starting point for your own script.

python scripts/train.py quickstart --set outer.steps=50 --workers 2 --run-dir runs/mine
"""

import argparse
import sys

import metaopt
from metaopt.errors import MetaoptError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="path of a YAML file, or the name of a bundled config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value of the config; may be repeated")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--run-dir")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    try:
        run = metaopt.train(
            args.config,
            overrides=args.set,
            seed=args.seed,
            run_dir=args.run_dir,
            workers=args.workers,
            device=args.device,
            resume=args.resume,
            progress=lambda what, done, total, numbers=None: print(what, done, "of", total, numbers, file=sys.stderr),
        )
    except MetaoptError as error:
        print(error, file=sys.stderr)
        return 2
    print(run.metrics.tail(5).to_string(index=False))
    print("artifact:", run.artifact)
    return 75 if run.stopped else 3 if run.quarantined else 0


if __name__ == "__main__":
    sys.exit(main())
