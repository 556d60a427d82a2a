"""From one row a run to the tables of an evaluation: means with intervals, overall and by family.

Every task of a set counts the same; one whose baseline cannot be inverted has no reward, and counts in everything else. Intervals are
percentiles of the bootstrap stratified by family: in each, tasks are drawn with replacement, and inner seeds within them. They speak of
tasks like these of these families, not of these alone.

Pure functions of the rows; an interval is a function of what it is about, not of which others were made before.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from metaopt.evaluation.policies.rivals import DEFAULT, GRID
from metaopt.evaluation.policies.rows import COSINE, POLICY, TUNED, UNGUARDED
from metaopt.evaluation.statistics.aggregates import overall_mean
from metaopt.evaluation.statistics.named_axes import AXES, ScoreCube
from metaopt.evaluation.statistics.resampling import Interval, bootstrap
from metaopt.seeds import stable_hash

__all__ = ["EVERY", "comparison_table", "factor_table", "family_interval", "grid_table", "reward_table"]

EVERY = "all"
_TIE = 1e-9  # means of equal rewards may differ by rounding

Array = NDArray[np.float64]
Row = dict[str, Any]


def family_interval(rows: pd.DataFrame, column: str, about: str) -> Interval:
    """Return the mean of a column over all runs with its 95 % interval.

    Args:
        rows: `family`, `task`, `seed` and the column; each task with the same seeds. Rows without a number are left out; NaN if all are.
        about: what decides the random numbers.
    """
    rows, cubes = rows[rows[column].notna()], []
    if not len(rows):
        return Interval(np.nan, np.nan, np.nan)
    for _, own in rows.groupby("family", sort=True):
        table = own.pivot(index="task", columns="seed", values=column).sort_index()
        cubes.append(ScoreCube(table.to_numpy(np.float64)[None], tuple(table.index), tuple(map(int, table.columns)), axes=AXES))

    def mean(*families: Array) -> Array:
        return overall_mean(np.concatenate(families, axis=-2))

    generator = np.random.default_rng(stable_hash("policy evaluation", about))
    return bootstrap(cubes, mean, generator, new_tasks=True, shared_runs=False)


def reward_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the mean reward and the share of diverged runs of everybody, by set and family; of the grid, of the default alone.

    Columns: set, family, who, tasks, runs, reward, low, high, diverged, and the paired difference of the policy: ahead, ahead_low,
    ahead_high.
    """
    rows = []
    for name, family, own in _parts(runs):
        policy = own[own.who == POLICY]
        for who, mine in own[~own.who.isin(GRID) | (own.who == DEFAULT)].groupby("who", sort=False):
            about = f"{name} {family} {who}"
            found = family_interval(mine, "reward", about)
            row = {"set": name, "family": family, "who": who, "tasks": mine.task.nunique(), "runs": len(mine)}
            row |= {"reward": found.value, "low": found.low, "high": found.high, "diverged": float(mine.diverged.mean())}
            ahead = family_interval(_paired(policy, mine), "ahead", about)
            rows.append(row | {"ahead": ahead.value, "ahead_low": ahead.low, "ahead_high": ahead.high})
    return pd.DataFrame(rows)


def grid_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the mean reward and divergence of each run of the grid, by set and family: set, family, who, reward, diverged.

    Sets without the whole grid are left out.
    """
    rows = [
        {"set": name, "family": family, "who": who, "reward": float(mine.reward.mean()), "diverged": float(mine.diverged.mean())}
        for name, family, own in _parts(runs[runs.who.isin(GRID)])
        if own.who.nunique() == len(GRID)
        for who, mine in own.groupby("who", sort=False)
    ]
    return pd.DataFrame(rows, columns=["set", "family", "who", "reward", "diverged"])


def comparison_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return how the policy stands beside the grid and what is tuned best, by set and family.

    Columns: `median` and `best` with their rewards are the run of the grid whose mean reward is the middle one and the largest;
    `ahead`, `ahead_low` and `ahead_high` the policy's paired difference to the former; `beaten` the share of the grid's runs with a lower
    mean reward; `wins_cosine` and `wins_tuned` the shares of runs that end lower than cosine at its best rate, and than the best of the
    grid, of the same task and seed; `diverged` and `diverged_unguarded` the policy's shares of diverged runs. NaN where there is no grid.
    """
    rows = []
    for name, family, own in _parts(runs):
        policy = own[own.who == POLICY]
        row: Row = {"set": name, "family": family, "tasks": policy.task.nunique(), "reward": float(policy.reward.mean())}
        grid = own[own.who.isin(GRID)].groupby("who", sort=False).reward.mean().sort_values(kind="stable")
        if len(grid) == len(GRID) and grid.notna().all():
            median, best = str(grid.index[len(grid) // 2]), str(grid.index[-1])
            ahead = family_interval(_paired(policy, own[own.who == median]), "ahead", f"{name} {family} median")
            row |= {"median": median, "median_reward": float(grid[median]), "best": best, "best_reward": float(grid[best])}
            row |= {"ahead": ahead.value, "ahead_low": ahead.low, "ahead_high": ahead.high}
            row |= {"beaten": float((grid < row["reward"] - _TIE).mean())}
        for column, who in (("wins_cosine", COSINE), ("wins_tuned", TUNED)):
            other = own[own.who == who]
            row[column] = float(_won(policy, other).mean()) if len(other) else np.nan
        row["diverged"] = float(policy.diverged.mean())
        row["diverged_unguarded"] = float(own[own.who == UNGUARDED].diverged.mean())
        rows.append(row)
    return pd.DataFrame(rows)


def factor_table(equal: pd.DataFrame) -> pd.DataFrame:
    """Return by how much a baseline needs more steps for the policy's loss, as a geometric mean with interval, by set and family.

    Columns: set, family, against, runs, factor, low, high, median, at_most, at_least: the last two count runs whose factor is the nearest
    budget that was tried, the true one being smaller or larger.
    """
    rows = []
    for name, family, own in _parts(equal):
        for against, mine in own.groupby("against", sort=False):
            logs = mine.assign(log=np.log(mine.factor))
            found = family_interval(logs, "log", f"{name} {family} {against}")
            row = {"set": name, "family": family, "against": against, "runs": len(mine), "factor": np.exp(found.value)}
            row |= {"low": np.exp(found.low), "high": np.exp(found.high), "median": float(mine.factor.median())}
            rows.append(row | {"at_most": int(mine.at_most.sum()), "at_least": int(mine.at_least.sum())})
    columns = ["set", "family", "against", "runs", "factor", "low", "high", "median", "at_most", "at_least"]
    return pd.DataFrame(rows, columns=columns)


def _parts(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for name, own in rows.groupby("set", sort=False):
        yield str(name), EVERY, own
        for family, mine in own.groupby("family", sort=True):
            yield str(name), str(family), mine


def _together(policy: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    return policy.merge(other, on=["family", "task", "seed"], suffixes=("", "_other"), validate="one_to_one")


def _paired(policy: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    both = _together(policy, other)
    return both.assign(ahead=both.reward - both.reward_other)


def _won(policy: pd.DataFrame, other: pd.DataFrame) -> "pd.Series[bool]":
    both = _together(policy, other)
    return both.loss.fillna(np.inf) < both.loss_other.fillna(np.inf)
