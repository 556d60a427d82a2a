"""Intervals and tables of made rows."""

import numpy as np
import pandas as pd
import pytest

from metaopt.evaluation.policies.rivals import GRID
from metaopt.evaluation.policies.rows import COSINE, POLICY, TUNED, UNGUARDED
from metaopt.evaluation.policies.summary import comparison_table, factor_table, family_interval, grid_table, reward_table


def rows(tasks, seeds=5, families=("a", "b"), sigma=0.1, shift=0.0, seed=0):
    generator = np.random.default_rng(seed)
    made = [
        {"family": family, "task": f"{family}{j}", "seed": k, "x": shift + sigma * float(generator.standard_normal())}
        for family in families
        for j in range(tasks)
        for k in range(seeds)
    ]
    return pd.DataFrame(made)


def test_the_interval_is_around_the_mean_of_all_tasks():
    table = rows(20)
    found = family_interval(table, "x", "about")
    assert found.value == pytest.approx(table.x.mean())
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * table.x.std() / len(table) ** 0.5, rel=0.6)


def test_it_depends_on_what_it_is_about_and_on_nothing_else():
    table = rows(5)
    assert family_interval(table, "x", "one") == family_interval(table.sample(frac=1.0, random_state=1), "x", "one")
    assert family_interval(table, "x", "one") != family_interval(table, "x", "two")


def test_families_are_strata():
    table = rows(6, sigma=0.0)
    table.loc[table.family == "b", "x"] = 1.0  # between families there is all the spread that there is
    found = family_interval(table, "x", "about")
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_tasks_are_drawn_and_not_their_seeds_alone():
    table = rows(6, sigma=0.0, families=("a",))
    table["x"] = [float(task[1:]) for task in table.task]
    found = family_interval(table, "x", "about")
    assert found.low < 2.5 - 0.5
    assert found.high > 2.5 + 0.5


def runs(policy, grid, cosine=1.0, tuned=0.5):
    """Losses are minus the rewards; the grid's i-th run has reward grid[i]."""
    every = {POLICY: policy, UNGUARDED: policy, COSINE: cosine, TUNED: tuned} | dict(zip(GRID, grid, strict=True))
    return pd.DataFrame(
        [
            {"set": "s", "family": "a", "task": f"t{j}", "seed": k, "who": who, "reward": float(r), "reward_best": r / 2}
            | {"loss": -float(r), "diverged": j == 0}
            for who, r in every.items()
            for j in range(3)
            for k in range(2)
        ]
    )


def row_of(table, who):
    return table[(table.family == "all") & (table.who == who)].iloc[0]


def test_the_policy_beside_the_grid():
    grid = np.linspace(-1.0, 0.7, len(GRID))
    table = comparison_table(runs(0.3, grid))
    row = table[table.family == "all"].iloc[0]
    assert row["median"] == GRID[17]
    assert row.median_reward == pytest.approx(np.median(grid))
    assert row.best == GRID[-1]
    assert row.beaten == pytest.approx((grid < 0.3 - 1e-9).mean())
    assert row.ahead == row.ahead_low == pytest.approx(0.3 - np.median(grid))


def test_wins_are_lower_losses_and_ties_are_halves():
    table = runs(2.0, np.zeros(len(GRID)))
    shown = reward_table(table)
    assert row_of(shown, TUNED)[["wins", "wins_low", "wins_high"]].tolist() == [1.0, 1.0, 1.0]
    assert row_of(shown, UNGUARDED).wins == row_of(shown, POLICY).wins == 0.5
    table.loc[table.who == UNGUARDED, "loss"] *= 1 + 1e-6  # the same run in another program
    table.loc[(table.who == COSINE) & (table.seed == 0), "loss"] = -3.0
    shown = reward_table(table)
    assert row_of(shown, UNGUARDED).wins == 0.5
    cosine = row_of(shown, COSINE)
    assert cosine.wins_low < cosine.wins == 0.5 < cosine.wins_high


def test_a_failure_never_wins():
    table = runs(2.0, np.zeros(len(GRID)))
    table.loc[table.who == POLICY, "loss"] = np.nan
    table.loc[table.who == COSINE, "loss"] = np.inf
    shown = reward_table(table)
    assert row_of(shown, TUNED).wins == 0.0
    assert row_of(shown, COSINE).wins == 0.5


def test_wins_tell_apart_what_reaches_the_ceiling():
    table = runs(0.69, np.zeros(len(GRID)), cosine=0.69)
    table.loc[table.who == COSINE, "loss"] = -0.5
    cosine = row_of(reward_table(table), COSINE)
    assert (cosine.ahead, cosine.ahead_best, cosine.wins) == (0.0, 0.0, 1.0)


def test_rewards_of_the_grid_are_in_a_table_of_their_own():
    made = runs(0.3, np.zeros(len(GRID)))
    assert not set(GRID) - set(grid_table(made).who)
    shown = reward_table(made)
    assert set(shown.who) & set(GRID) == {"constant 0.001"}
    assert shown[shown.who == COSINE].ahead.tolist() == pytest.approx([-0.7, -0.7])
    assert shown[shown.who == COSINE].ahead_best.tolist() == pytest.approx([-0.35, -0.35])
    assert row_of(shown, COSINE)[["reward_best", "reward_best_low", "reward_best_high"]].tolist() == [0.5, 0.5, 0.5]
    assert (shown[shown.who == POLICY].ahead == 0).all()


def test_factors_are_geometric_means_with_what_is_out_of_range_counted():
    equal = pd.DataFrame(
        [
            {"set": "s", "family": "a", "task": f"t{j}", "seed": k, "against": "x", "factor": f, "at_most": False, "at_least": f == 8.0}
            for j, f in enumerate((2.0, 8.0))
            for k in range(2)
        ]
    )
    row = factor_table(equal).iloc[0]
    assert row.factor == pytest.approx(4.0)
    assert row.low <= row.factor <= row.high
    assert (row.at_most, row.at_least, row.runs) == (0, 2, 4)
