"""Rows of single runs, and what they are measured with."""

import math
from dataclasses import replace

import numpy as np
import pytest

from metaopt.baselines import Curves
from metaopt.evaluation.tables.results import COLUMNS
from metaopt.evaluation.tables.rows import Reference, RunLabels, ScoredTask, Yardstick, failed_job_rows, learner_rows, sort_rows
from metaopt.tasks import get

SPEC = get("quadratic").sample("6x6-minimum", 3, (40, 40))
TASK = ScoredTask("bowl", SPEC, 10.0, (7, 8))
STEPS = np.linspace(0.0, 40.0, 5)
MINE = RunLabels("mine", "learner", 1, "f" * 16)


def straight(*ends):
    heldout = np.stack([np.linspace(1.0, end, 5) for end in ends], axis=1)
    return Curves(STEPS, heldout, heldout + 0.5, np.zeros(len(ends), dtype=bool))


REFERENCE = Reference("sgd", 0.1, {40: straight(0.4, 0.2)})
STICK = Yardstick(TASK, "bowl", None, 0.7, (REFERENCE.envelope(0), REFERENCE.envelope(1)), None, 0.5)


def rows(curves, stick=STICK, **change):
    return learner_rows(stick, replace(MINE, **change), curves)


def test_every_run_is_compared_with_the_reference_of_its_own_seed():
    first, second = rows(straight(0.4, 0.4))
    assert first["speed_up"] == pytest.approx(1.0)
    assert second["speed_up"] < 0.85, "on seed 1 the reference does better"
    assert (first["inner_seed"], second["inner_seed"]) == (7, 8)


def test_losses_are_those_of_the_last_point():
    first, _ = rows(straight(0.4, 0.2))
    assert (first["first_loss"], first["final_loss"], first["final_train_loss"]) == (1.0, 0.4, 0.9)
    assert first["anytime"] < 1.0
    assert first["anytime_train"] == pytest.approx(first["anytime"] + 0.5)
    assert first["reason"] is None


def test_a_score_is_the_fall_of_the_loss_in_units_of_the_task():
    assert [row["score"] for row in rows(straight(0.3, 0.65))] == pytest.approx([1.0, 0.5])
    assert [row["score"] for row in rows(straight(1.0, 1.0))] == [0.0, 0.0], "exactly, for a learner that does nothing"


def test_time_to_target_is_the_first_point_at_or_below_it():
    first, second = rows(straight(0.4, 0.6))
    assert first["steps_to_target"] == 40.0
    assert math.isnan(second["steps_to_target"]), "missed"
    assert math.isnan(rows(straight(0.0, 0.0), replace(STICK, target=math.nan))[0]["steps_to_target"]), "no target"


def test_constant_rates_have_a_speed_up_of_their_own():
    archive = (np.array([0.0, 40.0, 160.0]), np.array([1.0, 0.8, 0.6]))
    first, second = rows(straight(0.8, 0.1), replace(STICK, constant_rates=archive))
    assert 0.0 < first["constant_rate_speed_up"] < 1.0, "both lag behind, the learner's curve more"
    assert (second["constant_rate_speed_up"], second["saturated"]) == (4.0, True)
    assert math.isnan(rows(straight(0.8, 0.1))[0]["constant_rate_speed_up"])


def test_a_failed_run_has_the_worst_of_every_score():
    archive = (np.array([0.0, 160.0]), np.array([1.0, 0.5]))
    bad = straight(1.2, 0.2)
    bad.diverged[1] = True
    for row, reason in zip(rows(bad, replace(STICK, constant_rates=archive)), ("ends above its first loss", "diverged"), strict=True):
        losses = (row["final_loss"], row["final_train_loss"], row["anytime"], row["anytime_train"])
        assert losses == (10.0,) * 4
        assert (row["score"], row["speed_up"], row["constant_rate_speed_up"], row["censored"], row["saturated"]) == (0, 0, 0, False, False)
        assert math.isnan(row["steps_to_target"]), "although the second run was below the target"
        assert row["failed"]
        assert row["reason"] == reason


def test_non_finite_losses_never_reach_a_score():
    broken = straight(np.nan, 0.2)
    assert [row["failed"] for row in rows(broken)] == [True, False]
    assert all(np.isfinite(row["final_loss"]) for row in rows(broken))


def test_a_job_without_curves_has_the_same_columns():
    lost = failed_job_rows(STICK, MINE, "worker gone")
    assert len(lost) == 2
    assert set(lost[0]) == set(rows(straight(0.4, 0.2))[0]) == set(COLUMNS["scores"])
    assert {row["reason"] for row in lost} == {"worker gone"}
    assert lost[0]["score"] == lost[0]["speed_up"] == 0.0


def test_a_run_too_few_is_an_error():
    with pytest.raises(ValueError, match="mine on bowl must have 2 runs, got 1"):
        rows(straight(0.4))


def test_labels_are_kept():
    row = rows(straight(0.4, 0.2), replace(STICK, base="bowl", level="x2"), settings="0.1", meta_seed=3, inside_support=False)[1]
    assert (row["settings"], row["meta_seed"], row["inside_support"], row["base"], row["level"]) == ("0.1", 3, False, "bowl", "x2")
    assert (row["task_hash"], row["horizon_steps"], row["family"]) == (SPEC.hash, 40, "quadratic")


def test_the_order_of_rows_does_not_depend_on_the_order_of_arrival():
    lines = rows(straight(0.4, 0.2), meta_seed=1) + rows(straight(0.4, 0.2)) + rows(straight(0.4, 0.2), kind="baseline")
    lines += failed_job_rows(STICK, replace(MINE, learner="also"), "gone")
    table, other = sort_rows(lines), sort_rows(lines[::-1])
    assert table.equals(other)
    assert table.kind.tolist() == ["learner"] * 6 + ["baseline"] * 2
    assert table.meta_seed.tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert table.columns.tolist() == list(COLUMNS["scores"])
