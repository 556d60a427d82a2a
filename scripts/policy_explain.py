"""Explain a hyperparameter policy: knobs over runs, sensitivity of its choices, and what is left of it in open loop.

python scripts/policy_explain.py ARTIFACT OUT [--set draws] [--templates 4] [--tasks 1] [--seeds 5] [--eval-loss] [--workers N]
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
    """Explain one artifact; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", help="path or name of a policy")
    parser.add_argument("out", type=Path, help="folder for explanation.json and figures")
    parser.add_argument("--set", default="draws", help=f"one of {', '.join(policies.SETS)}; default: draws")
    parser.add_argument("--templates", type=int, default=4, help="of each family, at most; default: 4")
    parser.add_argument("--tasks", type=int, default=1, help="of each template and horizon; default: 1")
    parser.add_argument("--decisions", type=int, default=policies.DECISIONS, help="of each run; default: %(default)s")
    parser.add_argument("--seeds", type=int, default=5, help="of each task; default: 5")
    parser.add_argument("--eval-loss", action="store_true", help="let the policy see a held-out loss")
    parser.add_argument("--registers", action="store_true", help="let it save and load")
    parser.add_argument("--store", type=Path, help="folder of baseline runs; default: the bundled one and the user's cache")
    parser.add_argument("--workers", type=int, default=0, help="processes; default: this one")
    given = parser.parse_args(arguments)
    try:
        artifact = find_policy(given.artifact)
        chosen = policies.named_set(given.set, policies.trained_families(artifact), given.tasks, given.templates, given.decisions)
        store = Store((given.store,)) if given.store else None
        with make_pool(given.workers, None, policies.PolicyEvaluationSetup()) as pool:
            found = policies.explain_policy(artifact, chosen, given.seeds, store, pool, given.eval_loss, given.registers)
    except MetaoptError as error:
        print(f"policy_explain: {error}", file=sys.stderr)
        return 2
    for path in found.save(given.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
