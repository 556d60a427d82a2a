"""The derivative of a look-ahead against central differences, and short runs that it adapts."""

import pytest
import torch

from metaopt import seeds
from metaopt.estimators.short_horizon.network import (
    HAND_RATE,
    MOMENTUM,
    Weights,
    batches,
    heavy_ball,
    network_task,
    pretrained,
    stacked_rows,
)
from metaopt.estimators.short_horizon.online import hyper_gradient, look_ahead_loss, online, unpacked

TASK = network_task(batch_size=16, width=16)
KEYS = torch.stack([seeds.key("online", seed) for seed in (0, 1)])
HYPER = torch.tensor([[-2.5, -2.3], [-3.0, -1.0]], dtype=torch.float64)


def double(weights: Weights) -> Weights:
    return Weights(*({name: value.double() for name, value in part.items()} for part in weights))


def drawn(first: int, count: int = 5):
    found = batches(TASK, KEYS, torch.arange(first, first + count))
    return {"x": found["x"].double(), "y": found["y"]}


def test_the_derivative_is_the_one_of_central_differences():
    weights, ahead, judged = double(pretrained(TASK, KEYS, 5)), drawn(0), drawn(5)
    found = hyper_gradient(TASK)(HYPER, weights, ahead, judged)
    one = stacked_rows(weights, 1)
    first, second = ({name: value[:, 1] for name, value in part.items()} for part in (ahead, judged))

    def loss(h):
        return float(look_ahead_loss(TASK, h, one, first, second))

    for i in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[i] = 1e-6
        assert float(found[1, i]) == pytest.approx((loss(HYPER[1] + step) - loss(HYPER[1] - step)) / 2e-6, rel=1e-5, abs=1e-8)


def test_a_look_ahead_is_its_steps_and_the_mean_of_its_judges():
    weights = stacked_rows(pretrained(TASK, KEYS, 5), 0)
    ahead, judged = ({name: value[:, 0] for name, value in batches(TASK, KEYS, torch.arange(k, k + 3)).items()} for k in (0, 3))
    rate, momentum = unpacked(HYPER[0].float())
    found = look_ahead_loss(TASK, HYPER[0].float(), weights, ahead, judged)
    for k in range(3):
        weights = heavy_ball(TASK, weights, {name: value[k] for name, value in ahead.items()}, rate, momentum)
    losses = [TASK.loss(weights.params, {name: value[k] for name, value in judged.items()}) for k in range(3)]
    assert float(found) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_the_two_numbers_stand_for_rate_and_momentum():
    rate, momentum = unpacked(torch.tensor([HAND_RATE / (1 - MOMENTUM), 1 - MOMENTUM]).log())
    assert float(rate) == pytest.approx(HAND_RATE, rel=1e-5)
    assert float(momentum) == pytest.approx(MOMENTUM, rel=1e-5)
    assert float(unpacked(torch.tensor([50.0, -40.0]))[1]) <= 1.0


def test_fresh_batches_ask_for_a_smaller_rate_than_one_repeated():
    found = online(TASK, 60, 20, (0, 1))
    stochastic, deterministic, hand = found.runs
    assert [run.name for run in found.runs] == ["stochastic", "deterministic", "hand-set"]
    assert found.moments == (0, 20, 40, 60)
    assert found.skipped == 0
    assert all(run.rate.shape == run.loss.shape == (4, 2) for run in found.runs)
    assert (stochastic.rate[-1] < deterministic.rate[-1]).all()
    assert (deterministic.collapse > 1).all()
    assert torch.allclose(hand.collapse, torch.ones(2))
    assert torch.equal(stochastic.loss[0], hand.loss[0]), "the same weights before anything is adapted"
    again = online(TASK, 60, 20, (0, 1))
    assert torch.equal(again.runs[0].rate, stochastic.rate)
