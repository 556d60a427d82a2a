"""The two rules of selection by hand: the best theta, and the end of patience."""

import math

import pytest
import torch

from metaopt.outer.blobs import from_blob, to_blob
from metaopt.outer.selection import Selection

SPREAD = torch.tensor([-0.1, 0.1, 0.0, 0.0], dtype=torch.float64)


def losses(level: float, spread: torch.Tensor = SPREAD) -> dict[str, torch.Tensor]:
    return {"a": level + spread, "b": level - spread}


def theta(step: int) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(float(step))}


def consider(selection: Selection, step: int, values: dict[str, torch.Tensor]) -> dict:
    """Take in a validation of the last theta alone."""
    return selection.consider(step, {"last": theta(step)}, {"last": values})


def run(levels: list[float], patience: int | None = None) -> tuple[Selection, list[dict]]:
    selection = Selection(patience)
    return selection, [consider(selection, 10 * i, losses(level)) for i, level in enumerate(levels)]


def test_the_lowest_loss_is_best_and_the_first_of_equals() -> None:
    selection, rows = run([0.9, 0.5, 0.7, 0.5, 0.6])
    assert selection.best_step == 10
    assert torch.equal(selection.best_theta["w"], torch.tensor(10.0))
    assert [row["best_step"] for row in rows] == [0, 10, 10, 10, 10]
    assert [row["loss"] for row in rows] == pytest.approx([0.9, 0.5, 0.7, 0.5, 0.6])
    value, low, high = selection.score
    assert value == pytest.approx(0.5)
    se = math.sqrt(2 * float(SPREAD.var()) / 4) / 2
    assert (low, high) == pytest.approx((0.5 - 1.96 * se, 0.5 + 1.96 * se))
    assert rows[0]["loss_se"] == pytest.approx(se)


def test_the_start_can_be_the_best() -> None:
    assert run([0.5, 0.6, 0.7])[0].best_step == 0


def test_waiting_counts_validations_since_an_improvement_and_small_ones_add_up() -> None:
    # Equal spreads cancel in pairs: any lower level is an improvement.
    assert [row["waiting"] for row in run([0.9, 0.8, 0.8, 0.85, 0.7])[1]] == [0, 0, 1, 2, 0]
    noisy = torch.tensor([0.3, -0.3, 0.1, -0.1], dtype=torch.float64)
    selection = Selection(2)
    consider(selection, 0, losses(0.9))
    se = math.sqrt(2 * float((noisy - SPREAD).var()) / 4) / 2
    row = consider(selection, 1, losses(0.9 - 0.6 * se, noisy))
    assert row["change_se"] == pytest.approx(se)
    assert (row["improved"], row["waiting"], row["best_step"]) == (False, 1, 1)  # the best, but not beyond its standard error
    row = consider(selection, 2, losses(0.9 - 1.2 * se, noisy))  # measured from the anchor, not from the last one
    assert (row["improved"], row["waiting"], row["best_step"]) == (True, 0, 2)


def test_patience_ends_the_run_and_null_never_does() -> None:
    assert [run([0.5] + [0.6] * n, patience=3)[0].exhausted for n in range(5)] == [False, False, False, True, True]
    assert not run([0.5] + [0.6] * 50)[0].exhausted


def test_a_job_that_was_given_up_counts_for_nobody() -> None:
    selection = Selection()
    consider(selection, 0, {"a": 0.5 + SPREAD, "b": 9.0 + SPREAD})
    row = consider(selection, 1, {"a": 0.6 + SPREAD})
    assert row["best_step"] == 0  # on what both were measured on
    assert row["change"] == pytest.approx(0.1)
    assert selection.score[0] == pytest.approx(0.5)
    row = consider(selection, 2, {})
    assert math.isnan(row["loss"])
    assert selection.last_score is None
    assert not row["improved"]


def test_state_continues_exactly() -> None:
    levels = [0.9, 0.5, 0.7, 0.65, 0.4]
    whole, _ = run(levels, patience=4)
    half, _ = run(levels[:3], patience=4)
    again = Selection.of(4, from_blob(to_blob(half.state())))
    for i in (3, 4):
        consider(again, 10 * i, losses(levels[i]))
    assert to_blob(again.state()) == to_blob(whole.state())
    assert again.patience == 4
    assert Selection.of(None, None).validated == -1


def test_the_better_of_theta_and_its_average_is_the_candidate() -> None:
    selection, both = Selection(), {"average": theta(-1), "last": theta(1)}
    row = selection.consider(0, both, {"average": losses(0.5), "last": losses(0.4)})
    assert (row["kind"], selection.best_kind) == ("last", "last")
    assert float(selection.best_theta["w"]) == 1.0
    row = selection.consider(1, both, {"average": losses(0.3), "last": losses(0.4)})
    assert (row["kind"], row["loss"], selection.best_kind) == ("average", pytest.approx(0.3), "average")
    assert float(selection.best_theta["w"]) == -1.0
    row = selection.consider(2, both, {"average": losses(0.35), "last": losses(0.35)})
    assert row["kind"] == "average"  # of equals
    assert selection.last_score == pytest.approx(0.35)
