"""Floors: what the measurement is, on a family whose answer is known, and that the table belongs to families there are."""

import pytest
import torch

from metaopt import inner, learners, tasks
from metaopt.baselines.floors import Reached, floor_of, reached
from metaopt.tasks.floors import FLOORS


def test_the_floor_is_the_median_of_the_lower_loss() -> None:
    rows = [Reached(str(i), 2.0, heldout, train, 0.1) for i, (heldout, train) in enumerate([(0.5, 0.1234), (0.3, 0.9), (0.2, 0.05)])]
    assert floor_of(rows) == 0.123
    assert floor_of([Reached("a", 1.0, -0.1, -0.2, 0.1)]) == 0.0


def test_reached_is_the_best_of_single_runs() -> None:
    family = tasks.get("digits_mlp")
    row = reached(family, "16-tanh-b32", steps=40, rates=(1e-3, 3e-2), count=2)
    learner = {rate: learners.get("adam", lr=rate, schedule="warmup_cosine") for rate in (1e-3, 3e-2)}
    group = [family.build(family.sample("16-tanh-b32", seed, (40, 40))) for seed in (0, 1)]
    finals = {}
    for rate, one in learner.items():
        trace = inner.run(one, {}, group, [0, 1], 40, eval_every=40)
        finals[rate] = float(trace.eval_raw[-1].mean())
        if rate == row.rate:
            assert row.first == pytest.approx(float(trace.eval_raw[0].mean()), rel=1e-4)
            assert row.heldout == pytest.approx(finals[rate], rel=1e-3)
            assert row.train == pytest.approx(float(trace.loss[-4:].mean()), rel=1e-3)
    assert row.rate == min(finals, key=finals.__getitem__) == 3e-2


def test_a_rate_that_diverges_is_out() -> None:
    row = reached(tasks.get("quadratic"), "10x1-none", steps=30, rates=(0.1, float("inf")), count=1)
    assert row.rate == 0.1
    assert torch.isfinite(torch.tensor([row.first, row.heldout, row.train])).all()


def test_the_table_names_families_that_there_are() -> None:
    assert set(FLOORS) <= set(tasks.names())
    assert all(value > 0.0 for value in FLOORS.values())
