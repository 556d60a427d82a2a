"""From one row a run to the tables of an evaluation: means with intervals, overall and by family.

Every task of a set counts the same; one whose baseline cannot be inverted has no reward, and counts in everything else. Rewards have a
ceiling, which many good runs reach on easy tasks: who wins has none, and tells them apart. Intervals are
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
from metaopt.evaluation.policies.rows import POLICY
from metaopt.evaluation.statistics.aggregates import overall_mean
from metaopt.evaluation.statistics.named_axes import AXES, ScoreCube
from metaopt.evaluation.statistics.resampling import Interval, bootstrap
from metaopt.seeds import stable_hash

__all__ = ["EVERY", "comparison_table", "factor_table", "family_interval", "grid_table", "reward_table"]

EVERY = "all"
_TIE = 1e-9  # means of equal rewards may differ by rounding
_EQUAL = 1e-5  # of a loss: the same run in another program differs by less

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
    """Return the mean rewards and the share of diverged runs of everybody, by set and family; of the grid, of the default alone.

    Columns: set, family, who, tasks, runs, reward, low, high, diverged; how much the policy is ahead, paired by task and seed: ahead,
    ahead_low, ahead_high; the same for rewards against the best constant rate: reward_best, reward_best_low, reward_best_high, ahead_best,
    ahead_best_low, ahead_best_high; and the share of the policy's runs that end lower, half of a tie: wins, wins_low, wins_high.
    """
    rows = []
    for name, family, own in _parts(runs):
        policy = own[own.who == POLICY]
        for who, mine in own[~own.who.isin(GRID) | (own.who == DEFAULT)].groupby("who", sort=False):
            about = f"{name} {family} {who}"
            found = family_interval(mine, "reward", about)
            row = {"set": name, "family": family, "who": who, "tasks": mine.task.nunique(), "runs": len(mine)}
            row |= {"reward": found.value, "low": found.low, "high": found.high, "diverged": float(mine.diverged.mean())}
            both = _paired(policy, mine)
            for column, table in (("ahead", both), ("reward_best", mine), ("ahead_best", both), ("wins", both)):
                found = family_interval(table, column, about)
                row |= {column: found.value, f"{column}_low": found.low, f"{column}_high": found.high}
            rows.append(row)
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
    """Return how the policy stands beside the grid, by set and family.

    Columns: `median` and `best` with their rewards are the run of the grid whose mean reward is the middle one and the largest;
    `ahead`, `ahead_low` and `ahead_high` the policy's paired difference to the former; `beaten` the share of the grid's runs with a lower
    mean reward. Without a grid they are missing.
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


def _paired(policy: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each task and seed: by how much the policy is ahead, and whether it ends lower; what is not finite never does."""
    both = policy.merge(other, on=["family", "task", "seed"], suffixes=("", "_other"), validate="one_to_one")
    mine, others = (both[column].fillna(np.inf).to_numpy() for column in ("loss", "loss_other"))
    tied = np.isclose(mine, others, rtol=_EQUAL, atol=0.0)
    return both.assign(
        ahead=both.reward - both.reward_other,
        ahead_best=both.reward_best - both.reward_best_other,
        wins=np.where(tied, 0.5, mine < others),
    )
