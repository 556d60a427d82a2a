"""Pairs modulo p: the table against arithmetic, parts that share no pair, the same parts every time."""

import pytest
import torch

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.streams.pairs import Pairs

BOTH = [("plus", 7), ("times", 7), ("plus", 10)]


def found(stream: Pairs) -> dict[str, dict[tuple[int, int], int]]:
    shared = stream.shared()
    return {
        part: {(a, b): y for (a, b), y in zip(shared[f"{part}_x"].tolist(), shared[f"{part}_y"].tolist(), strict=True)}
        for part in ("train", "heldout")
    }


@pytest.mark.parametrize(("operation", "modulus"), BOTH)
def test_both_parts_are_the_table_of_the_operation(operation: str, modulus: int) -> None:
    parts = found(Pairs(modulus, operation, 60))
    first = 0 if operation == "plus" else 1
    want = {(a, b): (a + b if operation == "plus" else a * b) % modulus for a in range(first, modulus) for b in range(first, modulus)}
    assert {**parts["train"], **parts["heldout"]} == want
    assert not parts["train"].keys() & parts["heldout"].keys()
    assert len(parts["train"]) == round(0.6 * len(want))


@pytest.mark.parametrize("operation", ["plus", "times"])
def test_every_row_of_the_table_is_a_permutation_for_a_prime(operation: str) -> None:
    parts = found(Pairs(11, operation, 50))
    table = {**parts["train"], **parts["heldout"]}
    classes = set(table.values())
    for a in classes:
        assert {y for (left, _), y in table.items() if left == a} == classes


def test_a_larger_share_holds_the_pairs_of_a_smaller_one() -> None:
    small, large = (found(Pairs(13, "plus", share))["train"] for share in (30, 70))
    assert small.items() < large.items()
    assert found(Pairs(13, "times", 30))["train"].keys() != small.keys()


def test_a_batch_is_the_whole_part_whatever_the_key() -> None:
    stream = Pairs(7, "plus", 60)
    shared = stream.shared()
    for t, name in ((0, "one"), (5, "two")):
        batch = stream.batch(shared, seeds.key(name), torch.tensor(t))
        assert torch.equal(batch["x"], shared["train_x"])
        assert torch.equal(batch["y"], shared["train_y"])
    assert torch.equal(stream.heldout(shared)["x"], shared["heldout_x"])


def test_at_most_500_pairs_are_held_out() -> None:
    shared = Pairs(59, "plus", 40).shared()
    assert len(shared["heldout_y"]) == 500
    assert len(shared["train_y"]) == round(0.4 * 59**2)


@pytest.mark.parametrize("changes", [{"operation": "minus"}, {"modulus": 2}, {"share_percent": 0}, {"share_percent": 100}])
def test_pairs_that_make_no_task_are_refused(changes: dict[str, object]) -> None:
    value = next(iter(changes.values()))
    with pytest.raises(TaskError, match=str(value)):
        Pairs(**({"modulus": 7, "operation": "plus", "share_percent": 50} | changes))
