"""Moving statistics against their definition."""

import pytest
import torch

from metaopt import seeds
from metaopt.learners.policies.normaliser import BETA, CLIP, Normaliser

KEY = seeds.key("test normaliser")


def batch(index: int, *shape: int) -> torch.Tensor:
    return seeds.normal(seeds.fold_in(KEY, index), shape) * (1.0 + index) + 3.0 * index


def test_statistics_are_the_exponential_average_without_bias() -> None:
    net = Normaliser(4)
    batches = [batch(k, 20 + k, 4).double() for k in range(6)]
    for rows in batches:
        net.update(rows.float())
    weight = torch.tensor([(1 - BETA) * BETA ** (5 - k) for k in range(6)], dtype=torch.float64)
    weight /= weight.sum()
    mean = sum(w * rows.mean(0) for w, rows in zip(weight, batches, strict=True))
    square = sum(w * rows.square().mean(0) for w, rows in zip(weight, batches, strict=True))
    torch.testing.assert_close(net.mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.variance.double(), square - mean.square(), rtol=1e-5, atol=1e-5)
    assert int(net.updates) == 6


def test_the_first_batch_counts_in_full() -> None:
    net, rows = Normaliser(3), batch(2, 50, 3)
    net.update(rows)
    torch.testing.assert_close(net.mean, rows.mean(0))
    torch.testing.assert_close(net.variance, rows.var(0, correction=0))


def test_output_is_normalised_and_clipped() -> None:
    net = Normaliser(1)
    net.update(torch.tensor([[1.0], [5.0]]))
    got = net(torch.tensor([[3.0], [4.0], [1e6], [-1e6]])).squeeze(-1)
    torch.testing.assert_close(got, torch.tensor([0.0, 0.5, CLIP, -CLIP]), rtol=1e-5, atol=1e-6)
    open_ended = Normaliser(1, clip=float("inf"))
    open_ended.load_state_dict(net.state_dict())
    x = torch.tensor([[-7.0], [3.0], [1e4]])
    torch.testing.assert_close(open_ended.inverse(open_ended(x)), x)


def test_a_constant_feature_is_zero_and_a_change_of_it_is_bounded() -> None:
    net = Normaliser(1)
    for _ in range(3):
        net.update(torch.full((10, 1), 7.0))
    assert float(net(torch.tensor([7.0]))) == pytest.approx(0.0, abs=1e-6)
    assert abs(float(net(torch.tensor([8.0])))) == CLIP


def test_only_valid_rows_count_and_only_update_changes_anything() -> None:
    a, b, rows = Normaliser(2), Normaliser(2), batch(1, 3, 4, 2)
    valid = torch.tensor([[True] * 4, [True, False, True, False], [False, False, True, False]])
    spoiled = torch.where(valid.unsqueeze(-1), rows, torch.nan)
    a.update(spoiled, valid)
    b.update(rows[valid])
    assert torch.equal(a.mean, b.mean)
    assert torch.equal(a.variance, b.variance)
    before = {name: value.clone() for name, value in a.state_dict().items()}
    a.train()(rows)
    a.update(rows, torch.zeros(3, 4, dtype=torch.bool))
    assert all(torch.equal(value, before[name]) for name, value in a.state_dict().items())
