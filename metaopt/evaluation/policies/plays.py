"""Plays of a policy, of its rivals without training, and of its replays on all buckets of a set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from metaopt.artifacts import Artifact
from metaopt.artifacts.policy import policy_artifact
from metaopt.cluster import Pool
from metaopt.evaluation.policies import open_loop, rows
from metaopt.evaluation.policies.jobs import PlayJob, Who, run_plays
from metaopt.evaluation.policies.loop import Play, Rails
from metaopt.evaluation.policies.rivals import BucketRuns
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec
from metaopt.learners.policies.starts import inner_start
from metaopt.seeds import key
from metaopt_envs.settings import Settings

__all__ = ["Actors", "closed_loops", "play_settings", "replays", "variants"]

Actors = Mapping[str, tuple[Who, Artifact, Rails]]
Plays = dict[str, list[Play]]


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


def variants(artifact: Artifact, spec: PolicySpec, rails: Rails) -> Actors:
    """Return who is played: the policy, the policy without guard rails, its network before training, and random choices."""
    fresh = policy_artifact("untrained", PolicyNetwork(spec, key("untrained policy")))
    return {
        rows.POLICY: ("greedy", artifact, rails),
        rows.UNGUARDED: ("greedy", artifact, replace(rails, guard=False)),
        rows.UNTRAINED: ("greedy", fresh, rails),
        rows.RANDOM: ("random", artifact, rails),
    }


def closed_loops(actors: Actors, scored: Sequence[BucketRuns], settings: Settings, pool: Pool) -> Plays:
    """Return the plays of every actor, one a bucket.

    Raises:
        WorkerLostError: a play failed three times.
    """
    jobs = {
        name: [PlayJob(who, source, one.bucket, settings, one.run_seeds, rails) for one in scored]
        for name, (who, source, rails) in actors.items()
    }
    return _run(jobs, pool)


def replays(artifact: Artifact, policy: Sequence[Play], scored: Sequence[BucketRuns], settings: Settings, pool: Pool) -> Plays:
    """Return what is left of a policy's plays without feedback: its mean changes and its mean rate, over all of them, on each bucket.

    Raises:
        WorkerLostError: a play failed three times.
    """
    changes, rates = open_loop.mean_changes(policy), open_loop.mean_rates(policy)

    def blind(one: BucketRuns, play: Play, given: open_loop.Array | None) -> PlayJob:
        values: Tensor = open_loop.replayed(changes, inner_start(one.bucket.inner), len(play.steps), given)
        return PlayJob("replay", artifact, one.bucket, settings, one.run_seeds, Rails(), values)

    jobs = {
        name: [blind(one, play, given) for one, play in zip(scored, policy, strict=True)]
        for name, given in ((rows.REPLAY_CHANGES, None), (rows.REPLAY_RATES, rates))
    }
    return _run(jobs, pool)


def _run(jobs: dict[str, list[PlayJob]], pool: Pool) -> Plays:
    found = iter(run_plays([job for own in jobs.values() for job in own], pool))
    return {name: [next(found) for _ in own] for name, own in jobs.items()}
