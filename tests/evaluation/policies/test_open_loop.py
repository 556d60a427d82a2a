"""Mean behaviour and its replay."""

import numpy as np
import pytest
import torch

from metaopt.evaluation.policies.loop import Play
from metaopt.evaluation.policies.open_loop import mean_changes, mean_rates, replayed
from metaopt.learners.policies.knobs import KNOBS
from metaopt.learners.policies.starts import inner_start

START = inner_start("adamw")


def made(factors):
    """A play [T, E] whose rates are these factors of the start."""
    factors = torch.as_tensor(factors, dtype=torch.float64)
    values = START.expand(*factors.shape, -1).clone()
    values[..., 0] *= factors
    runs = factors.shape[1]
    return Play(tuple(range(len(factors))), START.expand(runs, -1), values, torch.empty(0), torch.zeros(runs), torch.zeros(runs))


def test_the_mean_of_one_run_is_that_run():
    factors = [[1.0], [2.0], [0.5], [8.0]]
    values = replayed(mean_changes([made(factors)]), START, 4)
    assert values[:, 0, 0] / START[0] == pytest.approx(np.array(factors)[:, 0])
    assert torch.allclose(values[:, 0, 1:], START[1:].expand(4, -1))


def test_changes_average_geometrically_and_rates_arithmetically():
    plays = [made([[1.0, 4.0], [1.0, 16.0]])]
    changes = mean_changes(plays)
    assert replayed(changes, START, 2)[:, 0, 0] / START[0] == pytest.approx([2.0, 4.0])
    rates = mean_rates(plays)
    assert replayed(changes, START, 2, rates)[:, 0, 0] / START[0] == pytest.approx([2.5, 8.5])


def test_runs_of_different_decision_counts_meet_at_shares_of_them():
    short, long = made([[1.0], [4.0]]), made([[1.0], [2.0], [4.0], [4.0]])
    assert mean_changes([short])[128, 0] == pytest.approx(np.log(4.0))
    assert replayed(mean_changes([short, long]), START, 4)[:, 0, 0] / START[0] == pytest.approx([1.0, 2.0, 4.0, 4.0])


def test_every_run_counts_the_same():
    one, three = made([[1.0]]), made([[np.e, np.e, np.e]])
    assert mean_changes([one, three])[:, 0] == pytest.approx(0.75)


def test_the_clipping_ratio_moves_in_log_odds():
    changes = np.zeros((256, len(KNOBS)))
    changes[:, KNOBS.index("clip_ratio")] = 1.0
    p = float(replayed(changes, START, 1)[0, 0, KNOBS.index("clip_ratio")])
    assert np.log(p / (1 - p)) == pytest.approx(np.log(0.8 / 0.2) + 1.0)
