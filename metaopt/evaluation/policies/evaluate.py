"""Evaluate a hyperparameter policy: in closed loop on held-out tasks, beside everything that it has to be better than.

Legend: K seeds.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import pandas as pd

from metaopt.artifacts import Artifact
from metaopt.artifacts.policy import load_policy
from metaopt.baselines.comparison import SEEDS
from metaopt.baselines.store import Store
from metaopt.cluster import Pool
from metaopt.errors import ConfigError
from metaopt.evaluation.policies import rows, summary
from metaopt.evaluation.policies.jobs import own_pool
from metaopt.evaluation.policies.loop import Rails
from metaopt.evaluation.policies.plays import closed_loops, play_settings, replays, variants
from metaopt.evaluation.policies.results import PolicyEvaluation
from metaopt.evaluation.policies.rivals import bucket_runs, rivals
from metaopt.evaluation.policies.task_sets import SETS, TaskSet, named_set, trained_families
from metaopt.learners.policies.network import PolicySpec

__all__ = ["default_sets", "evaluate_policy"]


def default_sets(artifact: Artifact) -> list[TaskSet]:
    """Return the sets that a policy is evaluated on unless told otherwise, by what its card says of its training.

    Raises:
        ConfigError: the card names no families.
    """
    trained = trained_families(artifact)
    return [named_set(name, trained) for name in SETS]


def evaluate_policy(
    artifact: Artifact,
    sets: Sequence[TaskSet] | None = None,
    seeds: int = SEEDS,
    store: Store | None = None,
    pool: Pool | None = None,
    eval_loss: bool = False,
    registers: bool = False,
    guard: bool | tuple[float, float] = True,
) -> PolicyEvaluation:
    """Return what a policy does on sets of tasks, with everything it is compared with on the same inner seeds.

    Args:
        artifact: of kind policy.
        sets: tasks; default: `default_sets`.
        seeds: inner seeds of each task, 1 to 5; those of every evaluation.
        store: of baseline runs; default: the bundled one and the user's cache.
        pool: of workers built from `PolicyEvaluationSetup`; default: this process. No number depends on it.
        eval_loss: whether the policy sees the loss on the half of the held-out examples that does not score.
        registers: whether it may save and load.
        guard: as `PolicyScheduler` has it.

    Raises:
        ConfigError: an artifact of another kind, seeds out of range, or a card that names no families where `sets` are missing.
        WorkerLostError: a piece of work failed three times.
    """
    if not 1 <= seeds <= SEEDS:
        raise ConfigError(f"seeds must be in 1 .. {SEEDS}, got {seeds}")
    network = load_policy(artifact)
    assert isinstance(network.spec, PolicySpec)
    settings = play_settings(network.spec, eval_loss, registers)
    rails = Rails(guard, artifact.card["limits"].get("max_lr"))
    chosen = default_sets(artifact) if sets is None else list(sets)
    rejected: dict[str, dict[str, dict[str, int]]] = {}
    tables: dict[str, list[rows.Row]] = {"runs": [], "equal": [], "trajectories": []}
    with ExitStack() as stack:
        workers = pool or stack.enter_context(own_pool())
        for task_set in chosen:
            scored, reasons = bucket_runs(task_set, seeds, store, workers)
            rejected[task_set.name] = {against: dict(counts) for against, counts in reasons.items()}
            plays = closed_loops(variants(artifact, network.spec, rails), scored, settings, workers)
            plays |= replays(artifact, plays[rows.POLICY], scored, settings, workers)
            found = iter(rivals([spec for one in scored for spec in one.specs], seeds, task_set.full, store, workers))
            for place, one in enumerate(scored):
                own = [next(found) for _ in one.specs]
                finals = {who: every[place].final_loss.numpy() for who, every in plays.items()}
                tables["runs"] += rows.actor_rows(task_set.name, one, finals)
                tables["runs"] += rows.baseline_rows(task_set.name, one, own)
                tables["equal"] += rows.equal_loss_rows(task_set.name, one, finals[rows.POLICY], own)
                tables["trajectories"] += rows.trajectory_rows(task_set.name, one, plays[rows.POLICY][place], own)
    runs, equal, trajectories = (pd.DataFrame(one) for one in tables.values())
    about = {"artifact": f"{artifact.name}@{artifact.fingerprint}", "seeds": seeds, "eval_loss": eval_loss}
    about |= {"registers": settings.registers, "guard": guard, "highest_lr": rails.highest}
    return PolicyEvaluation(
        about=about | {"decisions": {one.name: max(bucket.decisions for bucket in one.buckets) for one in chosen}},
        rejected=rejected,
        rewards=summary.reward_table(runs),
        comparison=summary.comparison_table(runs),
        factors=summary.factor_table(equal) if len(equal) else pd.DataFrame(columns=["set", "family", "against", "factor"]),
        grid=summary.grid_table(runs),
        runs=runs,
        equal=equal,
        trajectories=trajectories,
    )
