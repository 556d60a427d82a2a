"""One row a run: who, on which task and seed, what loss, what reward; and one for each budget that a baseline needs for the policy's loss.

Legend: K seeds.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaopt.baselines.comparison import steps_to_equal_loss
from metaopt.evaluation.policies.loop import Play
from metaopt.evaluation.policies.rivals import DEFAULT, GRID, WIDE_RATES, BucketRuns, Rivals

__all__ = [
    "AGAINST_DEFAULT",
    "COSINE",
    "POLICY",
    "RANDOM",
    "REPLAY_CHANGES",
    "REPLAY_RATES",
    "TUNED",
    "UNGUARDED",
    "UNTRAINED",
    "WIDE_COSINE",
    "actor_rows",
    "baseline_rows",
    "equal_loss_rows",
    "task_name",
    "trajectory_rows",
]

POLICY = "policy"
UNGUARDED = "policy, no guard rails"
UNTRAINED = "untrained policy"
RANDOM = "random policy"
REPLAY_CHANGES = "replay of mean changes"
REPLAY_RATES = "replay of mean rate"
COSINE = "cosine, best of 5 rates"
WIDE_COSINE = "cosine, best of 7 rates"
TUNED = "best of 35 runs"
AGAINST_DEFAULT = "AdamW 0.001"

Array = NDArray[np.float64]
Row = dict[str, Any]


def task_name(scored: BucketRuns, place: int) -> str:
    """Return the name of a bucket's task, unique by its hash."""
    spec = scored.specs[place]
    return f"{spec.family}/{spec.template}/{spec.horizon}/{spec.hash[:6]}"


def actor_rows(name: str, scored: BucketRuns, finals: Mapping[str, Array]) -> Iterator[Row]:
    """Yield a row for each run of actors on a bucket, whose final losses are [tasks K]."""
    for who, losses in finals.items():
        for place, own in enumerate(scored.by_task(losses)):
            yield from _rows(name, scored, place, who, own)


def baseline_rows(name: str, scored: BucketRuns, found: list[Rivals]) -> Iterator[Row]:
    """Yield a row for each run of the baselines on a bucket: of the grid, and of what is best of it.

    A best is the least mean loss over the seeds, chosen on the very losses that are reported: in favour of the baseline.
    """
    for place, rival in enumerate(found):
        every = {COSINE: _best(rival.cosine), WIDE_COSINE: _best(rival.wide)}
        if rival.grid is None:
            every[DEFAULT] = rival.default
        else:
            every |= dict(zip(GRID, rival.grid, strict=True)) | {TUNED: _best(rival.grid)}
        for who, losses in every.items():
            yield from _rows(name, scored, place, who, losses)


def equal_loss_rows(name: str, scored: BucketRuns, policy: Array, found: list[Rivals]) -> Iterator[Row]:
    """Yield, for each run of the policy (losses [tasks K]), the budget that a baseline on the same seed needs for its loss."""
    for place, rival in enumerate(found):
        every = {AGAINST_DEFAULT: rival.default_budgets, COSINE: rival.cosine_budgets, WIDE_COSINE: rival.wide_budgets}
        for against, budgets in every.items():
            if budgets is None:
                continue
            for seed, loss in enumerate(scored.by_task(policy)[place]):
                equal = steps_to_equal_loss(loss, budgets.fractions, budgets.best()[:, seed])
                yield {
                    "set": name,
                    "family": scored.bucket.family,
                    "task": task_name(scored, place),
                    "seed": seed,
                    "against": against,
                    "factor": float(equal.factor),
                    "at_most": bool(equal.at_most),
                    "at_least": bool(equal.at_least),
                }


def trajectory_rows(name: str, scored: BucketRuns, play: Play, found: list[Rivals]) -> Iterator[Row]:
    """Yield the rate of each run of a play after each decision, and the best of seven rates of a cosine on its task."""
    cosines = [WIDE_RATES[_best_place(rival.wide)] for rival in found]
    rates = play.values[:, :, 0].tolist()
    for step, row in zip(play.steps, rates, strict=True):
        for run, lr in enumerate(row):
            place = run % len(scored.specs)
            yield {
                "set": name,
                "family": scored.bucket.family,
                "task": task_name(scored, place),
                "seed": run // len(scored.specs),
                "progress": step / scored.bucket.horizon,
                "lr": lr,
                "cosine_rate": cosines[place],
            }


def _rows(name: str, scored: BucketRuns, place: int, who: str, losses: Array) -> Iterator[Row]:
    rewards = (scored.rewards(place, losses, against).tolist() for against in ("default", "best_constant"))
    for seed, (loss, reward, beside_best) in enumerate(zip(losses.tolist(), *rewards, strict=True)):
        yield {
            "set": name,
            "family": scored.bucket.family,
            "task": task_name(scored, place),
            "horizon": scored.bucket.horizon,
            "seed": seed,
            "who": who,
            "loss": loss,
            "reward": reward,
            "reward_best": beside_best,
            "diverged": not (np.isfinite(loss) and loss < scored.caps[place]),
        }


def _best(losses: Array) -> Array:
    """Return the losses [K] of the run [N, K] with the least mean."""
    best: Array = losses[_best_place(losses)]
    return best


def _best_place(losses: Array) -> int:
    with np.errstate(invalid="ignore", over="ignore"):
        means = losses.mean(axis=-1)
    return int(np.where(np.isfinite(means), means, np.inf).argmin())
