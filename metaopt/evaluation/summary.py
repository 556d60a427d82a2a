"""The headline table: one line a learner, and a baseline at each number of trials, with intervals."""

import numpy as np
import pandas as pd

from metaopt.evaluation.improvement import probability_of_improvement
from metaopt.evaluation.named_axes import AXES, ScoreCube
from metaopt.evaluation.resampling import Interval, bootstrap
from metaopt.evaluation.statistics import interquartile_mean
from metaopt.seeds import stable_hash

__all__ = ["score_cube", "summarise", "text_table"]


def score_cube(rows: pd.DataFrame, column: str) -> ScoreCube:
    """Return one learner's scores as a cube [1, tasks, seeds].

    Raises:
        ValueError: a (task, seed) is missing or there twice.
    """
    table = rows.pivot(index="task", columns="seed", values=column).astype(np.float64)
    return ScoreCube(table.to_numpy()[None], tuple(table.index), tuple(int(seed) for seed in table.columns), axes=AXES)


def summarise(scores: pd.DataFrame, reference: pd.DataFrame, order: list[tuple[str, int]]) -> pd.DataFrame:
    """Return the headline: for each (learner, trials), interquartile means with 95 % intervals and counts.

    Args:
        scores: rows of all runs.
        reference: rows of the best scheduled baseline of each task, on the same seeds.
        order: the lines wanted, in order.

    Every line uses an equal generator, so that equal scores have equal intervals.
    """
    lines = []
    best = score_cube(reference, "final_loss").negated()
    for learner, trials in order:
        rows = scores[(scores.learner == learner) & (scores.trials == trials)]
        loss = score_cube(rows, "final_loss")
        lines.append(
            {
                "learner": learner,
                "kind": rows.kind.iloc[0],
                "trials": trials,
                **_named("final_loss", bootstrap([loss], interquartile_mean, _generator())),
                **_named("speed_up", bootstrap([score_cube(rows, "speed_up")], interquartile_mean, _generator())),
                **_named("improvement", bootstrap([loss.negated(), best], probability_of_improvement, _generator())),
                "train_loss": float(interquartile_mean(score_cube(rows, "final_train_loss").values)),
                "anytime": float(interquartile_mean(score_cube(rows, "anytime").values)),
                "censored": int(rows.censored.sum()),
                "failures": int(rows.failed.sum()),
                "runs": len(rows),
            }
        )
    return pd.DataFrame(lines)


def text_table(summary: pd.DataFrame) -> str:
    """Return the headline as text of at most 80 columns."""
    head = f"{'learner':<24} {'K':>2}  {'final loss':<20}  {'speed-up':<17} {'cens.':>5} {'fail':>5}"
    lines = [head, "-" * len(head)]
    for row in summary.itertuples():
        name = row.learner if len(row.learner) <= 24 else row.learner[:23] + "~"
        value, low, high = (f"{number:.3f}"[:5] for number in (row.final_loss, row.final_loss_low, row.final_loss_high))
        loss = f"{value} [{low} {high}]"
        ratio = f"{row.speed_up:.2f} [{row.speed_up_low:.2f} {row.speed_up_high:.2f}]"
        trials = "" if row.kind == "learner" else str(row.trials)
        lines.append(f"{name:<24} {trials:>2}  {loss:<20}  {ratio:<17} {row.censored:>5} {row.failures:>5}")
    return "\n".join(line.rstrip() for line in lines)


def _generator() -> np.random.Generator:
    return np.random.default_rng(stable_hash("bootstrap"))


def _named(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
