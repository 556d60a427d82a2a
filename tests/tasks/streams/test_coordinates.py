"""Encoded coordinates: sines and cosines of fixed directions, a kernel that only sees differences, tables that stay what they are."""

import pytest
import torch

from metaopt import seeds
from metaopt.tasks.data.pictures import PICTURES
from metaopt.tasks.streams.coordinates import Coordinates, encode


def points(count: int, name: str = "points") -> torch.Tensor:
    return seeds.normal(seeds.key(name), (count, 2), torch.float64)


def test_without_features_coordinates_are_scaled() -> None:
    assert torch.equal(encode(points(5), 0, 3.0), 3.0 * points(5))


def test_features_are_points_on_circles() -> None:
    coded = encode(points(6), 9, 2.0)
    assert coded.shape == (6, 18)
    torch.testing.assert_close(coded[:, :9].square() + coded[:, 9:].square(), torch.ones(6, 9, dtype=torch.float64))


def test_the_frequency_turns_the_same_directions_faster() -> None:
    torch.testing.assert_close(encode(points(6), 9, 2.0), encode(2.0 * points(6), 9, 1.0), rtol=1e-12, atol=1e-12)


def test_products_of_encodings_depend_on_the_difference_only_and_approach_a_gaussian_kernel() -> None:
    """For directions N(0, f^2), the mean of cos(b'(x - y)) is exp(-f^2 |x - y|^2 / 2)."""
    x, y, shift = points(8), points(8, "others"), points(1, "shift")
    kernel = (encode(x, 4000, 0.7) * encode(y, 4000, 0.7)).sum(-1) / 4000
    moved = (encode(x + shift, 4000, 0.7) * encode(y + shift, 4000, 0.7)).sum(-1) / 4000
    torch.testing.assert_close(kernel, moved, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(kernel, torch.exp(-0.5 * 0.49 * (x - y).square().sum(-1)), rtol=0.0, atol=0.05)


@pytest.mark.parametrize("features", [0, 5])
def test_the_stream_is_the_picture_with_encoded_coordinates(features: int) -> None:
    stream, plain = Coordinates(PICTURES["brick"], 16, features, 2.0), PICTURES["brick"].load()
    shared = stream.shared()
    for part, (x, y) in (("train", plain.train), ("heldout", plain.heldout)):
        assert torch.equal(shared[f"{part}_x"], encode(x, features, 2.0))
        assert torch.equal(shared[f"{part}_y"], y)
    assert shared["train_x"].shape == (819, stream.inputs)
    assert shared["train_x"].dtype == torch.float32
    batch = stream.batch(shared, seeds.key("run"), torch.tensor(3))
    assert batch["x"].shape == (16, stream.inputs)
    rows = {(*x, y) for x, y in zip(shared["train_x"].tolist(), shared["train_y"].tolist(), strict=True) for x in [tuple(x)]}
    assert {(*x, y) for x, y in zip(batch["x"].tolist(), batch["y"].tolist(), strict=True)} <= rows
    assert torch.equal(stream.heldout(shared)["x"], shared["heldout_x"])
