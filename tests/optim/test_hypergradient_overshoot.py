"""A smooth run without noise, from a rate that is far too small: what brakes a rate that has become too large."""

import math

import pytest
import torch
from torch import nn

from metaopt.optim import HypergradientSGD

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]


def train(seed: int, **options: object) -> float:
    """Return the loss after 600 steps of SGD on 512 examples in one batch."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 1))
    x = torch.randn(512, 20)
    optimizer = HypergradientSGD(model.parameters(), lr=1e-4, **options)  # type: ignore[arg-type]
    for _ in range(600):
        loss = (model(x) - torch.sin(x[:, :1])).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("update", ["additive", "multiplicative"])
@pytest.mark.parametrize("seed", SEEDS)
def test_updates_that_see_the_size_of_a_gradient_brake_in_time(seed: int, update: str) -> None:
    assert train(seed, update=update) < 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_bounds_keep_a_cosine_from_overshooting(seed: int) -> None:
    assert train(seed, update="cosine", bounds=(1e-6, 0.3)) < 0.005


@pytest.mark.filterwarnings("ignore:a gradient had NaN")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_cosine_without_bounds_overshoots_as_the_docs_say(seed: int) -> None:
    """A limit, not a promise: should this ever fail, the page on hypergradients has to change."""
    assert math.isnan(train(seed, update="cosine"))
