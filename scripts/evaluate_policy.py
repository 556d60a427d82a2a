"""Evaluate a hyperparameter policy beside AdamW's grid, tuned cosines and its own replay, and write tables and figures.

python scripts/evaluate_policy.py ARTIFACT OUT [--sets draws,families,tiny,10x,100x] [--eval-loss] [--registers] [--no-guard] [--workers N]
"""

import argparse
import sys
from pathlib import Path

from metaopt.artifacts.policy import find_policy
from metaopt.baselines.store import Store
from metaopt.cluster import make_pool
from metaopt.errors import MetaoptError
from metaopt.evaluation import policies


def main(arguments: list[str] | None = None) -> int:
    """Evaluate one artifact; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", help="path or name of a policy")
    parser.add_argument("out", type=Path, help="folder for results.json, report.md, tables and figures")
    parser.add_argument("--sets", default=",".join(policies.SETS), help="sets of tasks, separated by commas; default: %(default)s")
    parser.add_argument("--templates", type=int, default=4, help="of each family, at most; default: 4")
    parser.add_argument("--tasks", type=int, default=1, help="of each template and horizon; default: 1")
    parser.add_argument("--decisions", type=int, default=policies.DECISIONS, help="of each run; default: %(default)s")
    parser.add_argument("--seeds", type=int, default=5, help="of each task, at most 5; default: 5")
    parser.add_argument("--eval-loss", action="store_true", help="let the policy see a held-out loss")
    parser.add_argument("--registers", action="store_true", help="let it save and load")
    parser.add_argument("--no-guard", action="store_true", help="without guard rails")
    parser.add_argument("--store", type=Path, help="folder of baseline runs; default: the bundled one and the user's cache")
    parser.add_argument("--workers", type=int, default=0, help="processes; default: this one")
    given = parser.parse_args(arguments)
    try:
        artifact = find_policy(given.artifact)
        trained = policies.trained_families(artifact)
        names = [name.strip() for name in given.sets.split(",")]
        sets = [policies.named_set(name, trained, given.tasks, given.templates, given.decisions) for name in names]
        store = Store((given.store,)) if given.store else None
        print(policies.expected_cost(sets, given.seeds, store).text(given.workers), flush=True)
        with make_pool(given.workers, None, policies.PolicyEvaluationSetup()) as pool:
            found = policies.evaluate_policy(
                artifact,
                sets,
                given.seeds,
                store,
                pool,
                given.eval_loss,
                given.registers,
                not given.no_guard,
            )
    except MetaoptError as error:
        print(f"evaluate_policy: {error}", file=sys.stderr)
        return 2
    print(policies.report_text(found))
    for path in policies.write_report(found, given.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
