"""Streams of a data set: training never sees what is held out, and batches are functions of key and step."""

import pytest
import torch
from torch.func import vmap

from metaopt import seeds
from metaopt.tasks import data
from metaopt.tasks.streams import Examples

DIGITS, MNIST = data.get("digits"), data.get("mnist")


def rows_of(inputs: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in inputs}


def test_heldout_rows_are_never_trained_on() -> None:
    stream, key = Examples(DIGITS, (1, 8, 8), 256), seeds.key("run")
    shared = stream.shared()
    assert len(shared["train_y"]) == 1437
    assert len(shared["heldout_y"]) == 360
    training, heldout = rows_of(shared["train_x"]), rows_of(shared["heldout_x"])
    assert not training & heldout
    seen = rows_of(torch.cat([stream.batch(shared, key, torch.tensor(t))["x"] for t in range(30)]))
    assert seen <= training
    assert len(seen) > 0.98 * len(training)  # 7,680 draws of 1,437 rows
    assert torch.equal(stream.heldout(shared)["x"], shared["heldout_x"])


@pytest.mark.parametrize("stream", [Examples(DIGITS, (1, 8, 8), 64), Examples(MNIST, (1, 12, 12), 64)])
def test_batches_keep_their_labels(stream: Examples) -> None:
    shared = stream.shared()
    label_of = {x.numpy().tobytes(): int(y) for x, y in zip(shared["train_x"], shared["train_y"], strict=True)}
    batch = stream.batch(shared, seeds.key("run"), torch.tensor(0))
    assert batch["x"].shape == (64, shared["train_x"].shape[1])
    assert [label_of[x.numpy().tobytes()] for x in batch["x"]] == batch["y"].tolist()


def test_evaluation_looks_at_a_bounded_number_of_rows() -> None:
    shared = Examples(MNIST, (1, 8, 8), 4).shared()
    assert len(shared["heldout_y"]) == 500
    assert len(shared["train_y"]) == 4000
    assert int(shared["heldout_y"].bincount().min()) > 30  # every class is still there


def test_particles_have_batches_of_their_own() -> None:
    stream = Examples(DIGITS, (1, 8, 8), 8)
    shared = stream.shared()
    keys = torch.arange(3)
    together = vmap(lambda key: stream.batch(shared, key, torch.tensor(5)))(keys)
    for i in range(3):
        alone = stream.batch(shared, keys[i], torch.tensor(5))
        assert torch.equal(together["x"][i], alone["x"])
        assert torch.equal(together["y"][i], alone["y"])
    assert not torch.equal(together["x"][0], together["x"][1])


def test_tasks_of_one_size_share_their_tensors_and_not_their_dicts() -> None:
    one, two = Examples(DIGITS, (1, 8, 8), 4).shared(), Examples(DIGITS, (1, 8, 8), 32).shared()
    assert one["train_x"] is two["train_x"]
    one.clear()
    assert two
