"""The loss buffer against explicit weighted sums, with a horizon that changes on the way, and what its features mean."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import vmap

from metaopt import seeds
from metaopt.learners.update_rules.loss_buffer import init_loss_buffer, loss_features, update_loss_buffer
from tests.learners.model_rule_reference import LossBufferReference


def run(losses, horizons, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Features after each loss."""
    buffer, found = init_loss_buffer(torch.zeros((), dtype=dtype)), []
    for loss, horizon in zip(losses, horizons, strict=True):
        buffer = update_loss_buffer(buffer, torch.tensor(loss, dtype=dtype), torch.tensor(horizon, dtype=dtype))
        found.append(loss_features(buffer))
    return found


def noisy(count: int) -> list[float]:
    noise = seeds.normal(seeds.key("test", "losses"), (count,), torch.float64)
    return [2.0 * math.exp(-i / 10) + 0.2 * float(noise[i]) for i in range(count)]


CHANGING = [50.0] * 8 + [500.0] * 8 + [20.0] * 9


@pytest.mark.parametrize("horizons", [[50.0] * 25, [3.0] * 25, [1.0] * 25, CHANGING], ids=["50", "3", "1", "changing"])
def test_features_equal_weighted_sums(horizons: list[float]) -> None:
    losses = noisy(25)
    losses[12], losses[17] = 40.0, -3.0  # capped, and a loss that is negative
    reference = LossBufferReference()
    for found, loss, horizon in zip(run(losses, horizons), losses, horizons, strict=True):
        np.testing.assert_allclose(found.numpy(), reference.update(loss, horizon), rtol=1e-9, atol=1e-12)


def test_averages_are_of_constants_too_when_the_horizon_changes() -> None:
    """Bias corrections stay right: every average of equal losses is that loss, whatever the decays were."""
    loss = torch.tensor(0.7, dtype=torch.float64)
    buffer = init_loss_buffer(loss)
    for horizon in (100.0, 1e5, 7.0, 12.0, 3e4):
        buffer = update_loss_buffer(buffer, loss, torch.tensor(horizon, dtype=torch.float64))
        torch.testing.assert_close(buffer["loss_mean"] / buffer["loss_weight"], loss.expand(10), rtol=1e-12, atol=0)


def test_long_horizons_are_exact_enough_in_float32() -> None:
    """1 - decay is 1e-5 there: computed as a difference it would be off by half a percent."""
    losses = noisy(200)
    double, single = (run(losses, [1e5] * 200, dtype)[-1] for dtype in (torch.float64, torch.float32))
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)


def test_time_constants_lie_between_ten_steps_and_the_run() -> None:
    buffer = update_loss_buffer(init_loss_buffer(torch.zeros(())), torch.tensor(1.0), torch.tensor(1e4))
    constants = -1.0 / torch.log1p(-buffer["loss_weight"].double())
    torch.testing.assert_close(constants, torch.logspace(1, 4, 10, dtype=torch.float64), rtol=1e-4, atol=0)


def test_the_first_two_losses_are_not_told() -> None:
    found = run([3.0, 1.0, 0.5, 0.2], [100.0] * 4)
    assert not found[0].any()
    assert not found[1].any()
    assert found[2].any()


def test_a_falling_loss_is_at_its_minimum() -> None:
    falling = run([math.exp(-i / 20) for i in range(60)], [200.0] * 60)[-1]
    assert (falling == -1).all()  # every average is the lowest so far
    rising = run([math.exp(i / 50) for i in range(60)], [200.0] * 60)[-1]
    assert (rising > 0).all()  # fast averages lie above slow ones


def test_a_spike_counts_for_little() -> None:
    losses = [1.0] * 20
    spiked = [*losses[:10], 1e9, *losses[11:]]
    means = []
    for series in (losses, spiked):
        buffer = init_loss_buffer(torch.zeros((), dtype=torch.float64))
        for loss in series:
            buffer = update_loss_buffer(buffer, torch.tensor(loss, dtype=torch.float64), torch.tensor(100.0, dtype=torch.float64))
        means.append(buffer["loss_mean"] / buffer["loss_weight"])
    assert (means[1] - means[0]).abs().max() < 0.1
    assert all(torch.isfinite(one).all() for one in run([1.0, math.inf, 1.0, 1.0], [100.0] * 4))


def test_particles_have_buffers_and_horizons_of_their_own() -> None:
    buffer = {name: torch.stack([value] * 3) for name, value in init_loss_buffer(torch.zeros((), dtype=torch.float64)).items()}
    losses, horizons = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.tensor([10.0, 100.0, 1000.0], dtype=torch.float64)
    for i in range(4):
        buffer = vmap(update_loss_buffer)(buffer, losses / (i + 1), horizons)
    found = vmap(loss_features)(buffer)
    for i in range(3):
        alone = run([float(losses[i]) / (k + 1) for k in range(4)], [float(horizons[i])] * 4)[-1]
        torch.testing.assert_close(found[i], alone, rtol=1e-12, atol=1e-14)
