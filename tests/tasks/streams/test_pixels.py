"""Pixels without labels: standardised or intensities, sides apart, sizes by averaging."""

import pytest
import torch

from metaopt import seeds
from metaopt.tasks import data
from metaopt.tasks.streams.pixels import Pixels


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_training_and_heldout_images_are_those_of_the_data_set() -> None:
    stream, found = Pixels(data.get("digits"), 8, 256), data.get("digits").load()
    shared = stream.shared()
    assert torch.equal(shared["train_x"], found.train[0])
    assert torch.equal(shared["heldout_x"], found.heldout[0][:256])
    assert torch.equal(stream.heldout(shared)["x"], shared["heldout_x"])
    drawn = rows(torch.cat([stream.batch(shared, seeds.key("run"), torch.tensor(t))["x"] for t in range(30)]))
    assert drawn <= rows(shared["train_x"])
    assert len(drawn) > 0.98 * 1437
    assert not drawn & rows(shared["heldout_x"])


def test_intensities_are_the_same_images_between_zero_and_one() -> None:
    plain, bounded = (Pixels(data.get("digits"), 8, 8, intensities).shared() for intensities in (False, True))
    for name in ("train_x", "heldout_x"):
        assert (float(bounded[name].min()), float(bounded[name].max())) == (0.0, 1.0)
        line = torch.corrcoef(torch.stack([plain[name].reshape(-1), bounded[name].reshape(-1)]).double())[0, 1]
        assert float(line) == pytest.approx(1.0, abs=1e-6)
    assert set((bounded["train_x"] * 16).round().unique().tolist()) == set(map(float, range(17)))  # digits have 17 grey levels


def test_smaller_images_are_averages() -> None:
    small, full = Pixels(data.get("digits"), 4, 8), Pixels(data.get("digits"), 8, 8)
    assert (small.features, full.features) == (16, 64)
    want = full.shared()["train_x"].reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
    torch.testing.assert_close(small.shared()["train_x"], want)
    assert small.batch(small.shared(), seeds.key("run"), torch.tensor(0))["x"].shape == (8, 16)
    assert small != full
    assert hash(small) == hash(Pixels(data.get("digits"), 4, 8))
