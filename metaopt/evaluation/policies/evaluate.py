"""Evaluate a hyperparameter policy: in closed loop on held-out tasks, beside everything that it has to be better than.

Legend: K seeds.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import pandas as pd
from torch import Tensor

from metaopt.artifacts import Artifact
from metaopt.artifacts.policy import load_policy, policy_artifact
from metaopt.baselines.comparison import SEEDS
from metaopt.baselines.reference import Against
from metaopt.baselines.store import Store
from metaopt.cluster import Pool
from metaopt.errors import ConfigError, TaskError
from metaopt.evaluation.policies import open_loop, rows, summary
from metaopt.evaluation.policies.jobs import PlayJob, Who, own_pool, run_plays
from metaopt.evaluation.policies.loop import Play, Rails
from metaopt.evaluation.policies.results import PolicyEvaluation
from metaopt.evaluation.policies.rivals import Scored, rivals, scored_buckets
from metaopt.evaluation.policies.task_sets import SETS, TaskSet, named_set, trained_families
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec
from metaopt.learners.policies.starts import inner_start
from metaopt.seeds import key
from metaopt_envs.settings import Settings

__all__ = ["default_sets", "evaluate_policy", "play_settings"]


def default_sets(artifact: Artifact) -> list[TaskSet]:
    """Return the sets that a policy is evaluated on unless told otherwise, by what its card says of its training.

    Raises:
        ConfigError: the card names no families.
    """
    trained = trained_families(artifact)
    return [named_set(name, trained) for name in SETS]


def play_settings(spec: PolicySpec, eval_loss: bool, registers: bool) -> Settings:
    """Return settings in which a policy sees and has what it is given, always."""
    return Settings(
        table=spec.table,
        knobs=spec.knobs,
        registers=registers and spec.registers,
        knob_missing=0.0,
        eval_missing=0.0 if eval_loss else 1.0,
        registers_missing=0.0,
        perturbed=0.0,
    )


def evaluate_policy(
    artifact: Artifact,
    sets: Sequence[TaskSet] | None = None,
    seeds: int = SEEDS,
    store: Store | None = None,
    pool: Pool | None = None,
    eval_loss: bool = False,
    registers: bool = False,
    guard: bool | tuple[float, float] = True,
    against: Against = "default",
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
        against: what rewards compare with: AdamW at 1e-3, or at the best of five constant rates.

    Raises:
        ConfigError: an artifact of another kind, seeds out of range, or a card that names no families where `sets` are missing.
        TaskError: no task of a set can be scored.
        WorkerLostError: a piece of work failed three times.
    """
    if not 1 <= seeds <= SEEDS:
        raise ConfigError(f"seeds must be in 1 .. {SEEDS}, got {seeds}")
    network = load_policy(artifact)
    assert isinstance(network.spec, PolicySpec)
    fresh = policy_artifact("untrained", PolicyNetwork(network.spec, key("untrained policy")))
    settings = play_settings(network.spec, eval_loss, registers)
    rails = Rails(guard, artifact.card["limits"].get("max_lr"))
    chosen = default_sets(artifact) if sets is None else list(sets)
    rejected: dict[str, dict[str, int]] = {}
    tables: dict[str, list[rows.Row]] = {"runs": [], "equal": [], "trajectories": []}
    with ExitStack() as stack:
        workers = pool or stack.enter_context(own_pool())
        for task_set in chosen:
            scored, reasons = scored_buckets(task_set, seeds, against, store, workers)
            rejected[task_set.name] = dict(reasons)
            if not scored:
                raise TaskError(f"no task of {task_set.name} can be scored: {', '.join(sorted(reasons))}; choose others")
            plays = _plays(scored, artifact, fresh, settings, rails, workers)
            found = iter(rivals([spec for one in scored for spec in one.specs], seeds, task_set.full, store, workers))
            for place, one in enumerate(scored):
                own = [next(found) for _ in one.specs]
                finals = {who: every[place].final_loss.numpy() for who, every in plays.items()}
                tables["runs"] += rows.run_rows(task_set.name, one, finals, own)
                tables["equal"] += rows.equal_loss_rows(task_set.name, one, finals[rows.POLICY], own)
                tables["trajectories"] += rows.trajectory_rows(task_set.name, one, plays[rows.POLICY][place], own)
    runs, equal, trajectories = (pd.DataFrame(one) for one in tables.values())
    about = {"artifact": f"{artifact.name}@{artifact.fingerprint}", "seeds": seeds, "against": against, "eval_loss": eval_loss}
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


def _plays(
    scored: Sequence[Scored], artifact: Artifact, fresh: Artifact, settings: Settings, rails: Rails, pool: Pool
) -> dict[str, list[Play]]:
    """Return the plays of every actor on every bucket; replays last, because they repeat what the policy did on all of them."""
    actors: tuple[tuple[str, Who, Artifact, Rails], ...] = (
        (rows.POLICY, "greedy", artifact, rails),
        (rows.UNGUARDED, "greedy", artifact, replace(rails, guard=False)),
        (rows.UNTRAINED, "greedy", fresh, rails),
        (rows.RANDOM, "random", artifact, rails),
    )
    jobs = {
        who: [PlayJob(actor, source, one.bucket, settings, one.run_seeds, own, one.scorer) for one in scored]
        for who, actor, source, own in actors
    }
    found = _by_actor(jobs, pool)
    changes, rates = open_loop.mean_changes(found[rows.POLICY]), open_loop.mean_rates(found[rows.POLICY])

    def blind(one: Scored, play: Play, given: open_loop.Array | None) -> PlayJob:
        values: Tensor = open_loop.replayed(changes, inner_start(one.bucket.inner), len(play.steps), given)
        return PlayJob("replay", artifact, one.bucket, settings, one.run_seeds, rails, one.scorer, values)

    replays = {
        who: [blind(one, play, given) for one, play in zip(scored, found[rows.POLICY], strict=True)]
        for who, given in ((rows.REPLAY_CHANGES, None), (rows.REPLAY_RATES, rates))
    }
    return found | _by_actor(replays, pool)


def _by_actor(jobs: dict[str, list[PlayJob]], pool: Pool) -> dict[str, list[Play]]:
    found = iter(run_plays([job for own in jobs.values() for job in own], pool))
    return {who: [next(found) for _ in own] for who, own in jobs.items()}
