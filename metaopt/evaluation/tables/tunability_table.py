"""What tuning trials buy: expected loss of the best of K trials, and the score of the trial that was chosen."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from metaopt.baselines import MOST_TRIALS, TRIALS, Tuned
from metaopt.evaluation.scores.tunability import expected_best
from metaopt.evaluation.statistics.aggregates import interquartile_mean
from metaopt.evaluation.tables.results import make_table

__all__ = ["tunability_table"]


def tunability_table(tuned: Mapping[str, Sequence[Tuned]], summary: pd.DataFrame) -> pd.DataFrame:
    """Return the table `tunability`.

    Args:
        tuned: task -> its tuned baselines, the same on every task; the largest design is in the table where every task has recorded it,
            and changes no other row.
        summary: the headline, from which the scores are.
    """
    finals: dict[str, list[np.ndarray]] = {}
    for _, group in sorted(tuned.items()):
        for one in group:
            finals.setdefault(one.baseline.name, []).append(np.array(one.finals))
    lines = summary[summary.kind == "baseline"]
    scores = {(name, trials): score for name, trials, score in lines[["learner", "trials", "score"]].itertuples(index=False, name=None)}
    rows = [
        {
            "baseline": name,
            "trials": trials,
            "expected_loss": _expected_loss([one if trials > max(TRIALS) else one[: max(TRIALS)] for one in losses], trials),
            "score": scores.get((name, trials), float("nan")),
        }
        for name, losses in finals.items()
        for trials in (*TRIALS, MOST_TRIALS)
        if trials in TRIALS or min(map(len, losses)) >= trials
    ]
    return make_table("tunability", rows)


def _expected_loss(finals: Sequence[np.ndarray], trials: int) -> float:
    """Return the interquartile mean over tasks of the expected best of some trials."""
    return float(interquartile_mean(np.array([float(expected_best(one, one, trials)) for one in finals])[None, :, None]))
