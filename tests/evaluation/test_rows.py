"""Rows of single runs."""

import numpy as np
import pytest

from metaopt.baselines import Curves
from metaopt.evaluation.rows import Reference, ScoredTask, failed_job_rows, learner_rows, sort_rows
from metaopt.tasks import get

SPEC = get("quadratic").sample("6x6-minimum", 3, (40, 40))
TASK = ScoredTask("bowl", SPEC, 10.0, (7, 8))
STEPS = np.linspace(0.0, 40.0, 5)


def straight(*ends):
    heldout = np.stack([np.linspace(1.0, end, 5) for end in ends], axis=1)
    return Curves(STEPS, heldout, heldout + 0.5, np.zeros(len(ends), dtype=bool))


REFERENCE = Reference("sgd", 0.1, {40: straight(0.4, 0.2)})


def rows(curves, **change):
    return learner_rows(TASK, "mine", 1, curves, REFERENCE, **({"kind": "learner", "learner_hash": "f"} | change))


def test_every_run_is_compared_with_the_reference_of_its_own_seed():
    first, second = rows(straight(0.4, 0.4))
    assert first["speed_up"] == pytest.approx(1.0)
    assert second["speed_up"] < 0.85, "on seed 1 the reference does better"
    assert (first["inner_seed"], second["inner_seed"]) == (7, 8)


def test_losses_are_those_of_the_last_point():
    first, _ = rows(straight(0.4, 0.2))
    assert (first["first_loss"], first["final_loss"], first["final_train_loss"]) == (1.0, 0.4, 0.9)
    assert first["anytime"] < 1.0
    assert first["reason"] is None


def test_a_failed_run_has_the_worst_of_every_score():
    bad = straight(1.2, 0.2)
    bad.diverged[1] = True
    for row, reason in zip(rows(bad), ("ends above its first loss", "diverged"), strict=True):
        worst = (row["final_loss"], row["final_train_loss"], row["anytime"], row["speed_up"], row["censored"])
        assert worst == (10.0, 10.0, 10.0, 0.0, False)
        assert row["failed"]
        assert row["reason"] == reason


def test_non_finite_losses_never_reach_a_score():
    broken = straight(np.nan, 0.2)
    assert [row["failed"] for row in rows(broken)] == [True, False]
    assert all(np.isfinite(row["final_loss"]) for row in rows(broken))


def test_a_job_without_curves_has_the_same_columns():
    lost = failed_job_rows(TASK, "mine", "f", "worker gone")
    assert len(lost) == 2
    assert set(lost[0]) == set(rows(straight(0.4, 0.2))[0])
    assert {row["reason"] for row in lost} == {"worker gone"}


def test_the_order_of_rows_does_not_depend_on_the_order_of_arrival():
    lines = rows(straight(0.4, 0.2)) + rows(straight(0.4, 0.2), kind="baseline") + failed_job_rows(TASK, "also", "f", "gone")
    table, other = sort_rows(lines), sort_rows(lines[::-1])
    assert table.equals(other)
    assert table.kind.tolist() == ["learner"] * 4 + ["baseline"] * 2
