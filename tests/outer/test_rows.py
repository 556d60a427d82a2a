"""Rows by hand: means over shards and templates, and their standard errors."""

import dataclasses
import json
import math

import pytest
import torch

from metaopt.estimators import MetaGradient
from metaopt.outer.rows import step_losses, step_row, validation_row
from metaopt.outer.validation import Measured

FAMILIES = ["a", "b", "b"]


def estimate(loss: float, se: float = 0.3, **more: int) -> MetaGradient:
    counts = {"nonfinite": 1, "diverged": 2, "inner_steps": 100, "sequential_steps": 25, **more}
    return MetaGradient({}, loss, se, **counts)


def test_losses_are_means_over_shards_and_by_family() -> None:
    row = step_losses({0: estimate(0.3), 1: estimate(0.6), 2: estimate(0.9, 0.6)}, FAMILIES)
    assert row["loss"] == pytest.approx(0.6)
    assert row["loss_se"] == pytest.approx(math.sqrt(0.09 + 0.09 + 0.36) / 3)
    assert row["families"] == {"a": pytest.approx(0.3), "b": pytest.approx(0.75)}
    nothing = step_losses({}, FAMILIES)
    assert math.isnan(nothing["loss"])
    assert nothing["families"] == {}


def test_a_row_adds_up_what_shards_report() -> None:
    row = step_row(7, {0: estimate(0.3), 2: estimate(0.6, sequential_steps=50)}, FAMILIES, {"lr": 0.1}, skipped=3, phase=1)
    assert (row["step"], row["lr"], row["skipped"], row["phase"]) == (7, 0.1, 3, 1)
    assert (row["nonfinite_rows"], row["diverged"], row["inner_steps"], row["sequential_steps"]) == (2, 4, 200, 50)
    assert row["estimator_clipped_frac"] == 0.0
    assert json.loads(json.dumps(row)) == row
    assert step_row(1, {}, FAMILIES, {})["sequential_steps"] == 0


def test_what_estimators_clipped_is_their_mean() -> None:
    estimates = {0: dataclasses.replace(estimate(0.3), clipped_frac=0.5), 1: estimate(0.3)}
    assert step_row(1, estimates, FAMILIES, {"clipped_frac": 1.0})["estimator_clipped_frac"] == 0.25


def test_a_validation_names_every_candidate_and_the_better_ones_templates() -> None:
    loss = torch.tensor([[0.4, 0.6], [0.2, 0.2]], dtype=torch.float64)
    measured = {"b/y": Measured(loss + 1, (0, 1), 40), "a/x": Measured(loss, (2, 0), 40)}
    row = validation_row(30, measured, ["average", "last"], {"kind": "last", "loss": 0.7}, given_up=1)
    assert row["step"] == 30
    numbers = row["validation"]
    assert (numbers["average_loss"], numbers["last_loss"]) == (pytest.approx(1.0), pytest.approx(0.7))
    assert numbers["average_loss_se"] == pytest.approx(math.sqrt(2 * 0.02 / 2) / 2)
    assert (numbers["average_diverged"], numbers["last_diverged"], numbers["inner_steps"], numbers["given_up"]) == (2, 1, 80, 1)
    assert numbers["templates"] == {"a/x": pytest.approx(0.2), "b/y": pytest.approx(1.2)}
    assert list(numbers["templates"]) == ["a/x", "b/y"]
    empty = validation_row(30, {}, ["last"], {"kind": "last"}, given_up=2)["validation"]
    assert math.isnan(empty["last_loss"])
