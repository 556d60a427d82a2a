"""Digits are split once and for all."""

import pytest
import torch

from metaopt import seeds
from metaopt.tasks.streams import Digits


def rows_of(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_heldout_rows_are_never_trained_on() -> None:
    shared = Digits(32).shared()
    assert len(shared["train_y"]) == 1437
    assert len(shared["heldout_y"]) == 360
    training, heldout = rows_of(shared["train_x"]), rows_of(shared["heldout_x"])
    assert not training & heldout
    stream, key = Digits(256), seeds.key("run")
    seen = rows_of(torch.cat([stream.batch(shared, key, torch.tensor(t))["x"] for t in range(30)]))
    assert seen <= training
    assert len(seen) > 0.98 * len(training)  # 7,680 draws of 1,437 rows
    assert torch.equal(stream.heldout(shared)["x"], shared["heldout_x"])


def test_images_keep_their_labels_and_are_standardised() -> None:
    shared = Digits(64).shared()
    label_of = {x.numpy().tobytes(): int(y) for x, y in zip(shared["train_x"], shared["train_y"], strict=True)}
    batch = Digits(64).batch(shared, seeds.key("run"), torch.tensor(0))
    assert batch["x"].shape == (64, 64)
    assert [label_of[x.numpy().tobytes()] for x in batch["x"]] == batch["y"].tolist()
    everything = torch.cat([shared["train_x"], shared["heldout_x"]])
    assert float(everything.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(everything.std()) == pytest.approx(1.0, abs=1e-5)
    assert set(torch.cat([shared["train_y"], shared["heldout_y"]]).tolist()) == set(range(10))
