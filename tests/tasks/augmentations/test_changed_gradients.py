"""Noise of the stated size, unit norm, and gradients that come late."""

import math

import pytest
import torch
from torch.func import vmap

from metaopt import inner, learners, seeds
from metaopt.tasks.augmentations import DelayedGradients, GradientNoise, NormalisedGradients, augment
from tests.tasks.augmentations.bench import bowl, digits, plain_bowl, strength

KEY = seeds.key("run")


def exact(task, params, step: int = 0):
    return torch.func.grad(task.loss)(params, task.batch(KEY, torch.tensor(step)))


def test_noise_has_the_stated_standard_deviation() -> None:
    plain = digits()
    task = strength(plain, GradientNoise(), 0.3)
    params = plain.init(KEY)
    grads = exact(plain, params)
    flat = torch.cat([g.reshape(-1) for g in grads.values()])
    rms = flat.square().mean().sqrt()

    def noise(step):
        batch = {**plain.batch(KEY, torch.tensor(0)), "gradient_noise.key": task.batch(KEY, step)["gradient_noise.key"]}
        noisy, _, _ = task.gradients(params, batch, {})
        return torch.cat([(noisy[name] - grads[name]).reshape(-1) for name in grads])

    rows = vmap(noise)(torch.arange(100))
    count = rows.numel()
    assert abs(float(rows.mean() / rms)) < 4 * 0.3 / math.sqrt(count)
    assert float(rows.std() / rms) == pytest.approx(0.3, abs=4 * 0.3 / math.sqrt(2 * count))
    assert abs(float((rows[:-1] * rows[1:]).mean() / rows.var())) < 4 / math.sqrt(count)  # steps are independent
    levels = [float(GradientNoise().apply(plain, i).numbers["gradient_noise"]) for i in range(200)]
    assert 0.01 <= min(levels) < 0.015
    assert 0.7 < max(levels) <= 1.0


def test_noise_of_particles_differs_and_that_of_antithetic_members_does_not() -> None:
    task = strength(bowl("none"), GradientNoise(), 0.5)
    losses = inner.run(learners.get("sgd", lr=1e-3), {}, [task] * 3, [1, 1, 2], 4).loss
    assert torch.equal(losses[:, 0], losses[:, 1])
    assert not torch.equal(losses[1:, 0], losses[1:, 2])


def test_normalised_gradients_have_unit_norm_and_keep_their_direction() -> None:
    plain = digits()
    task = NormalisedGradients().apply(plain, 0)
    params = plain.init(KEY)
    grads, loss, _ = task.gradients(params, plain.batch(KEY, torch.tensor(0)), {})
    before = exact(plain, params)
    norm = torch.cat([g.reshape(-1) for g in before.values()]).norm()
    assert float(torch.cat([g.reshape(-1) for g in grads.values()]).norm()) == pytest.approx(1, rel=1e-12)
    for name in grads:
        torch.testing.assert_close(grads[name] * norm, before[name], rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(loss, plain.loss(params, plain.batch(KEY, torch.tensor(0))))


def test_a_zero_gradient_stays_zero_with_a_finite_derivative() -> None:
    task = NormalisedGradients().apply(plain_bowl(2, 1, torch.eye(2, dtype=torch.float64)), 0)

    def gradient(x):
        return task.gradients({"x": x}, task.batch(KEY, torch.tensor(0)), {})[0]["x"]

    zero = torch.zeros(2, 1, dtype=torch.float64)
    assert float(gradient(zero).abs().max()) == 0
    assert bool(torch.isfinite(torch.func.jacrev(gradient)(zero)).all())
    point = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    expected = (torch.eye(2, dtype=torch.float64) - torch.outer(point[:, 0], point[:, 0]) / 25) / 5
    torch.testing.assert_close(torch.func.jacrev(gradient)(point)[:, 0, :, 0], expected)


@pytest.mark.parametrize("delay", [1, 3, 8])
def test_delayed_descent_follows_a_hand_written_one(delay: int) -> None:
    plain = bowl("minimum")
    task = strength(plain, DelayedGradients(), delay)
    learner = learners.get("sgd", lr=0.02)
    carry, x, seen = learner.init({}, task, KEY), plain.init(KEY)["x"], []
    for t in range(20):
        batch = plain.batch(KEY, torch.tensor(t))
        carry, record = learner.advance({}, task, carry, batch)
        gradient, loss = torch.func.grad_and_value(plain.loss)({"x": x}, batch)
        torch.testing.assert_close(record.loss, loss, rtol=1e-10, atol=0)
        seen.append(gradient["x"])
        if t >= delay:
            x = x - 0.02 * seen[t - delay]
        torch.testing.assert_close(carry["params"]["x"], x, rtol=1e-10, atol=1e-12)


def test_particles_with_other_delays_share_a_program_and_a_run() -> None:
    group = [strength(bowl("none"), DelayedGradients(), delay) for delay in (1, 4, 8)]
    assert len({task.program for task in group}) == 1
    learner = learners.get("sgd", lr=0.02)
    together = inner.run(learner, {}, group, [0, 0, 0], 12).loss
    for i, task in enumerate(group):
        torch.testing.assert_close(together[:, i], inner.run(learner, {}, [task], [0], 12).loss[:, 0])
    assert len(set(together[-1].tolist())) == 3
    delays = {int(DelayedGradients().apply(bowl(), i).numbers["delayed_gradients"]) for i in range(200)}
    assert delays == set(range(1, 9))


def test_all_of_them_at_once_act_in_the_stated_order() -> None:
    """Noise, then the norm, then the delay, whatever the order in which they are named."""
    plain = bowl("none")
    task = augment(plain, [DelayedGradients(steps=(2, 2)), NormalisedGradients(), GradientNoise(level=(0.5, 0.5))], 0)
    noisy = augment(plain, [GradientNoise(level=(0.5, 0.5))], 0)
    params, state = plain.init(KEY), task.gradient_state(plain.init(KEY))
    handed = []
    for t in range(4):
        grads, _, state = task.gradients(params, task.batch(KEY, torch.tensor(t)), state)
        handed.append(grads["x"])
    assert float(handed[0].abs().max()) == float(handed[1].abs().max()) == 0
    for t in (0, 1):
        expected = noisy.gradients(params, noisy.batch(KEY, torch.tensor(t)), {})[0]["x"]
        torch.testing.assert_close(handed[t + 2], expected / expected.norm())
