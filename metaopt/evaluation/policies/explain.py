"""What a policy does: how it turns each knob over a run, what its choice of the rate depends on, and what is left without feedback.

Legend: T decisions, E runs, K = 8 knobs.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaopt.artifacts import Artifact
from metaopt.artifacts.policy import load_policy
from metaopt.baselines.store import Store
from metaopt.cluster import Pool
from metaopt.evaluation.policies import rows
from metaopt.evaluation.policies.jobs import own_pool
from metaopt.evaluation.policies.loop import Play, Rails
from metaopt.evaluation.policies.plays import Actors, closed_loops, play_settings, replays
from metaopt.evaluation.policies.results import plain
from metaopt.evaluation.policies.rivals import bucket_runs
from metaopt.evaluation.policies.sensitivity import sensitivity
from metaopt.evaluation.policies.summary import reward_table
from metaopt.evaluation.policies.task_sets import TaskSet
from metaopt.learners.policies.knobs import KNOBS
from metaopt.learners.policies.network import PolicySpec

__all__ = ["Explanation", "explain_policy", "knob_table"]

POINTS = 32  # of the share of decisions at which knobs are told
_BAND = (10.0, 50.0, 90.0)  # percentiles of the runs


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a policy does.

    Attributes:
        about: artifact, seeds, set of tasks.
        knobs: family, knob, share, low, median, high: value over start, percentiles 10, 50 and 90 of the runs, at a share of the decisions.
        sensitivity: a row for each group of inputs, see `sensitivity.sensitivity`.
        open_loop: the policy in closed loop and its mean behaviour replayed, with the columns of `summary.reward_table`: the replays beside
            the best constant rate, and how often they end higher, say more than rewards, which have a ceiling.
    """

    about: Mapping[str, Any]
    knobs: pd.DataFrame
    sensitivity: pd.DataFrame
    open_loop: pd.DataFrame

    def to_json(self) -> str:
        """Return everything as canonical JSON."""
        tables = {name: getattr(self, name).to_dict("records") for name in ("knobs", "sensitivity", "open_loop")}
        return json.dumps(plain({"about": dict(self.about), **tables}), indent=1, allow_nan=False) + "\n"

    def save(self, folder: Path) -> list[Path]:
        """Write `explanation.json` and the figures as PNG; returns what was written."""
        from metaopt.evaluation.policies.explain_figures import explain_figures

        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "explanation.json"]
        written[0].write_text(self.to_json())
        for name, content in explain_figures(self).items():
            written.append(folder / f"{name}.png")
            written[-1].write_bytes(content)
        return written


def explain_policy(
    artifact: Artifact,
    task_set: TaskSet,
    seeds: int = 5,
    store: Store | None = None,
    pool: Pool | None = None,
    eval_loss: bool = False,
    registers: bool = False,
) -> Explanation:
    """Return what a policy does on a set of tasks, as it is deployed; arguments as `evaluate.evaluate_policy`.

    Raises:
        ConfigError: an artifact of another kind.
        WorkerLostError: a piece of work failed three times.
    """
    network = load_policy(artifact)
    assert isinstance(network.spec, PolicySpec)
    settings = play_settings(network.spec, eval_loss, registers)
    with ExitStack() as stack:
        workers = pool or stack.enter_context(own_pool())
        scored, _ = bucket_runs(task_set, seeds, store, workers)
        actors: Actors = {rows.POLICY: ("greedy", artifact, Rails(True, artifact.card["limits"].get("max_lr")))}
        plays = closed_loops(actors, scored, settings, workers)
        plays |= replays(artifact, plays[rows.POLICY], scored, settings, workers)
    policy = plays[rows.POLICY]
    runs: list[rows.Row] = []
    for place, one in enumerate(scored):
        runs += rows.actor_rows(task_set.name, one, {who: own[place].final_loss.numpy() for who, own in plays.items()})
    about = {"artifact": f"{artifact.name}@{artifact.fingerprint}", "set": task_set.name, "seeds": seeds, "eval_loss": eval_loss}
    turned = [name for name in KNOBS if name in network.spec.knobs]
    return Explanation(
        about=about | {"registers": settings.registers, "tasks": sum(len(one.specs) for one in scored)},
        knobs=knob_table([(one.bucket.family, play) for one, play in zip(scored, policy, strict=True)], turned),
        sensitivity=sensitivity(network, policy),
        open_loop=reward_table(pd.DataFrame(runs)),
    )


def knob_table(plays: Sequence[tuple[str, Play]], knobs: Sequence[str]) -> pd.DataFrame:
    """Return percentiles over runs of each knob's value over its start, by family and share of the decisions made.

    A knob holds its value until the next decision. Knobs that no run moves are left out.

    Args:
        plays: family and plays.
        knobs: names of those to tell.
    """
    shares = np.arange(POINTS) / POINTS
    found = []
    for family in dict.fromkeys(name for name, _ in plays):
        curves = []
        for name, play in plays:
            if name == family:
                at = np.minimum((shares * len(play.steps)).astype(int), len(play.steps) - 1)
                curves.append((play.values / play.start)[at].numpy())
        every = np.concatenate(curves, axis=1)
        for knob in knobs:
            low, median, high = np.percentile(every[:, :, KNOBS.index(knob)], _BAND, axis=1)
            for i, share in enumerate(shares.tolist()):
                found.append({"family": family, "knob": knob, "share": share, "low": low[i], "median": median[i], "high": high[i]})
    table = pd.DataFrame(found, columns=["family", "knob", "share", "low", "median", "high"])
    moved = table[(table.low != 1) | (table.high != 1)].knob.unique()
    return table[table.knob.isin(moved)].reset_index(drop=True)
