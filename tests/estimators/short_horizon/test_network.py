"""Runs of the small network: heavy ball as torch does it, runs that are functions of their keys, losses at the moments asked for."""

import math

import pytest
import torch

from metaopt import seeds
from metaopt.estimators.short_horizon.network import (
    HAND_RATE,
    MOMENTUM,
    Weights,
    batches,
    heavy_ball,
    interval,
    network_task,
    pretrained,
    stacked_rows,
    train,
    training_loss,
)

TASK = network_task(batch_size=8, width=12)
KEYS = torch.stack([seeds.key("test", seed) for seed in (0, 1)])


def constant(rate: float, count: int = 2):
    return lambda _: (torch.full((count,), rate), MOMENTUM)


def test_a_step_is_the_one_of_torch():
    weights = stacked_rows(pretrained(TASK, KEYS, 2), 0)
    params = [torch.nn.Parameter(value.clone()) for value in weights.params.values()]
    optimizer = torch.optim.SGD(params, lr=0.05, momentum=0.8)
    for param, buffer in zip(params, weights.buffers.values(), strict=True):
        optimizer.state[param]["momentum_buffer"] = buffer.clone()
    for step in range(3):
        batch = TASK.batch(KEYS[0], torch.tensor(step))
        weights = heavy_ball(TASK, weights, batch, 0.05, 0.8)
        optimizer.zero_grad()
        TASK.loss(dict(zip(weights.params, params, strict=True)), batch).backward()
        optimizer.step()
    for found, known in zip(weights.params.values(), params, strict=True):
        torch.testing.assert_close(found, known.detach(), rtol=1e-5, atol=1e-6)


def test_a_run_is_a_function_of_its_key():
    both = pretrained(TASK, KEYS, 3)
    twice = pretrained(TASK, KEYS[[1, 1]], 3)
    for name, param in both.params.items():
        torch.testing.assert_close(twice.params[name][0], param[1], rtol=1e-5, atol=1e-6)
        assert torch.equal(twice.params[name][0], twice.params[name][1])
    assert not torch.equal(both.params["layer0.weight"][0], both.params["layer0.weight"][1])


def test_a_run_in_two_parts_is_the_run():
    start = pretrained(TASK, KEYS, 1)
    whole, losses = train(TASK, start, KEYS, 70, constant(0.02), (0, 5, 70))
    half, first = train(TASK, start, KEYS, 40, constant(0.02), (0, 5))
    rest, last = train(TASK, half, KEYS, 30, constant(0.02), (70,), first=40)
    assert torch.equal(torch.cat([first, last]), losses)
    assert all(torch.equal(a, b) for a, b in zip(whole.params.values(), rest.params.values(), strict=True))
    assert (losses[-1] < losses[0]).all()


def test_rates_are_each_runs_own():
    start = pretrained(TASK, KEYS[[0, 0]], 1)
    after, losses = train(TASK, start, KEYS[[0, 0]], 4, lambda _: (torch.tensor([0.0, 0.05]), 0.0), (0, 4))
    assert losses[0, 0] == losses[0, 1] == losses[1, 0]
    assert losses[1, 1] != losses[0, 1]
    assert torch.equal(after.params["layer0.weight"][0], start.params["layer0.weight"][0])


def test_batches_are_the_tasks_own():
    drawn = batches(TASK, KEYS, torch.tensor([3, 9]))
    assert drawn["x"].shape == (2, 2, 8, 40)
    assert torch.equal(drawn["y"][1, 0], TASK.batch(KEYS[0], torch.tensor(9))["y"])


def test_the_loss_is_that_of_a_thousand_training_examples():
    params = pretrained(TASK, KEYS, 0).params
    one = {name: value[1] for name, value in params.items()}
    known = TASK.loss(one, {"x": TASK.shared["train_x"][:1000], "y": TASK.shared["train_y"][:1000]})
    assert float(training_loss(TASK, params)[1]) == pytest.approx(float(known), rel=1e-5)
    broken = {name: torch.full_like(value, math.nan) for name, value in params.items()}
    assert training_loss(TASK, broken).tolist() == [math.inf, math.inf]


def test_pretraining_is_at_the_hand_set_rate():
    fresh = pretrained(TASK, KEYS, 0)
    assert all(not buffer.any() for buffer in fresh.buffers.values())
    after = pretrained(TASK, KEYS, 1)
    for name, param in fresh.params.items():
        torch.testing.assert_close(after.params[name], param - HAND_RATE * after.buffers[name])


def test_rows_of_a_stack():
    stack = Weights({"w": torch.arange(6.0).reshape(3, 2)}, {"w": torch.zeros(3, 2)})
    assert stacked_rows(stack, torch.tensor([2, 2, 0])).params["w"].tolist() == [[4.0, 5.0], [4.0, 5.0], [0.0, 1.0]]
    assert stacked_rows(stack, slice(1)).params["w"].shape == (1, 2)


def test_an_interval_of_students_distribution():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
