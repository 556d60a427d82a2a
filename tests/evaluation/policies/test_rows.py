"""Rows of made losses: who ran on what, what is best of the grid, and what has diverged."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from metaopt.baselines.comparison import Budgets
from metaopt.baselines.power_curve import fit_power_curve
from metaopt.baselines.reference import Reference
from metaopt.baselines.tuning import evaluation_seeds
from metaopt.evaluation.policies.loop import Play
from metaopt.evaluation.policies.rivals import DEFAULT, GRID, BucketRuns, Rivals
from metaopt.evaluation.policies.rows import (
    AGAINST_DEFAULT,
    COSINE,
    POLICY,
    TUNED,
    WIDE_COSINE,
    actor_rows,
    baseline_rows,
    equal_loss_rows,
    task_name,
    trajectory_rows,
)
from tests.evaluation.policies.made_policies import BUCKET

CAP, SEEDS = 10.0, 2
T = np.geomspace(math.exp(-3), 1.0, 14)
CURVE = fit_power_curve(T, 0.2 + 0.1 / T)  # an AdamW that ends at 0.3
BEST_CURVE = fit_power_curve(T, 0.15 + 0.1 / T)  # and at 0.25
REFERENCE = Reference(5.0, (0.5, 0.4, 0.3, 0.25, 0.35), 3e-3, CURVE, BEST_CURVE)


def bucket_runs():
    specs = tuple(BUCKET.specs())
    return BucketRuns(BUCKET, specs, (REFERENCE,) * 2, (CAP,) * 2, tuple(evaluation_seeds(s, 0, SEEDS) for s in specs))


def rival(grid=None, cosine=0.4, default=0.3):
    fractions = np.array([0.25, 0.5, 1.0, 2.0])
    losses = np.array([0.9, 0.6, 0.4, 0.2])[:, None, None]
    five = np.full((5, SEEDS), cosine) if np.isscalar(cosine) else cosine
    return Rivals(
        np.full((len(GRID), SEEDS), 0.5) if grid is None else grid,
        five,
        np.concatenate([five, np.full((2, SEEDS), 0.35)]),
        np.full(SEEDS, default),
        Budgets(fractions, np.tile(losses, (1, 5, SEEDS))),
        Budgets(fractions, np.tile(losses - 0.1, (1, 7, SEEDS))),
        Budgets(fractions, np.tile(losses, (1, 1, SEEDS))),
    )


def rows(finals, rivals):
    one = bucket_runs()
    made = [*actor_rows("made", one, {POLICY: np.asarray(finals, np.float64)}), *baseline_rows("made", one, rivals)]
    return pd.DataFrame(made)


def of(table, who):
    return table[table.who == who]


def test_runs_are_told_by_task_and_seed():
    one = bucket_runs()
    assert one.by_task(np.array([0, 1, 10, 11])).tolist() == [[0, 10], [1, 11]]
    assert one.run_seeds == (one.seeds[0][0], one.seeds[1][0], one.seeds[0][1], one.seeds[1][1])
    mine = of(rows([0.1, 0.2, 0.3, 0.4], [rival()] * 2), POLICY)
    assert mine.loss.tolist() == [0.1, 0.3, 0.2, 0.4]
    assert mine.seed.tolist() == [0, 1, 0, 1]
    assert mine.task.tolist() == [task_name(one, 0)] * 2 + [task_name(one, 1)] * 2


def test_rewards_are_those_of_the_reference():
    mine = of(rows([0.3, 0.4, 0.25, 0.1], [rival()] * 2), POLICY)
    assert mine.reward.tolist() == pytest.approx([0.0, math.log(2), math.log(0.5), math.log(2)], abs=0.02)  # 0.2 + 0.1 / t
    assert mine.reward_best.tolist() == pytest.approx([math.log(2 / 3), 0.0, math.log(0.4), math.log(2)], abs=0.02)  # 0.15 + 0.1 / t


def test_the_best_of_many_has_the_least_mean_over_the_seeds():
    grid = np.full((len(GRID), SEEDS), 0.5)
    grid[3], grid[7], grid[9] = (0.1, 0.9), (0.45, 0.44), (np.nan, 0.0)
    cosine = np.array([[0.9, 0.9], [0.2, np.inf], [0.3, 0.4], [0.8, 0.8], [1.0, 1.0]])
    table = rows([0.3] * 4, [rival(grid, cosine), rival()])
    first = table[table.task == task_name(bucket_runs(), 0)]
    assert of(first, TUNED).loss.tolist() == [0.45, 0.44]
    assert of(first, COSINE).loss.tolist() == of(first, WIDE_COSINE).loss.tolist() == [0.3, 0.4]
    assert of(table[table.task != first.task.iloc[0]], WIDE_COSINE).loss.tolist() == [0.35, 0.35]
    assert of(first, GRID[3]).loss.tolist() == [0.1, 0.9]


def test_what_is_not_finite_or_past_the_cap_has_diverged_and_gets_the_lowest_reward():
    mine = of(rows([np.nan, 9.9, 10.0, 1e9], [rival()] * 2), POLICY)
    assert mine.diverged.tolist() == [True, True, False, True]
    assert mine.reward.iloc[0] == -3.0


def test_without_a_grid_there_is_the_default():
    one = rival()
    light = Rivals(None, one.cosine, one.wide, one.default)
    table = rows([0.3] * 4, [light] * 2)
    assert set(table.who) == {POLICY, COSINE, WIDE_COSINE, DEFAULT}
    assert not list(equal_loss_rows("made", bucket_runs(), np.full(4, 0.3), [light] * 2))


def test_budgets_for_the_policys_loss_are_read_off_each_baseline():
    table = pd.DataFrame(equal_loss_rows("made", bucket_runs(), np.array([0.4, 0.1, 0.6, 0.95]), [rival()] * 2))
    assert set(table.against) == {COSINE, WIDE_COSINE, AGAINST_DEFAULT}
    wide = table[table.against == WIDE_COSINE]
    assert wide.factor.tolist()[:2] == pytest.approx([0.5 * 2**0.5, 0.25 * 2 ** (2 / 3)])  # its losses are 0.8, 0.5 and 0.3 up to 1
    own = table[table.against == COSINE]
    assert own.factor.tolist() == pytest.approx([1.0, 0.5, 2.0, 0.25])
    assert own.at_least.tolist() == [False, False, True, False]
    assert own.at_most.tolist() == [False, False, False, True]


def test_rates_are_told_with_the_best_cosine_of_the_task():
    values = torch.ones(4, 4, 8, dtype=torch.float64)
    values[:, :, 0] = torch.arange(16, dtype=torch.float64).reshape(4, 4)
    play = Play((4, 8, 12, 16), torch.ones(4, 8), values, torch.empty(0), torch.zeros(4), torch.zeros(4))
    cosine = np.tile(np.array([0.9, 0.8, 0.1, 0.7, 0.6])[:, None], (1, SEEDS))
    table = pd.DataFrame(trajectory_rows("made", bucket_runs(), play, [rival(cosine=cosine), rival()]))
    assert table.lr.tolist() == list(range(16))
    first = table[table.task == task_name(bucket_runs(), 0)]
    assert set(first.cosine_rate) == {1e-3}
    assert set(table[table.task != first.task.iloc[0]].cosine_rate) == {3e-2}
    assert first[first.seed == 1].lr.tolist() == [2, 6, 10, 14]
    assert first[first.seed == 0].progress.tolist() == [4 / 20, 8 / 20, 12 / 20, 16 / 20]
