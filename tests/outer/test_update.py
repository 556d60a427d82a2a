"""The outer update against closed forms: schedule, balance, clipping, torch's own optimizers, exact continuation."""

import math

import pytest
import torch

from metaopt.config.schema import OptimizerConfig
from metaopt.estimators import flatten
from metaopt.outer.update import OuterUpdate, outer_lr

THETA = {"w": torch.tensor([[1.0, -2.0], [0.5, 3.0]]), "b": torch.tensor(0.25)}


def config(**options: object) -> OptimizerConfig:
    return OptimizerConfig(**({"name": "sgd", "lr": 1.0} | options))


def gradient(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(value.shape, generator=generator) for name, value in THETA.items()}


def unit(grad: dict[str, torch.Tensor]) -> torch.Tensor:
    vector = flatten(grad)
    return vector / vector.norm()


def test_learning_rate_schedule_by_hand() -> None:
    c = config(lr=2.0, warmup_steps=4, final_lr_frac=0.1)
    assert [outer_lr(c, step, 14) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert outer_lr(c, 4, 14) == 2.0
    assert outer_lr(c, 9, 14) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert outer_lr(c, 14, 14) == pytest.approx(0.2)
    assert outer_lr(c, 13, 14) == pytest.approx(2.0 * (0.1 + 0.45 * (1 + math.cos(0.9 * math.pi))))
    assert {outer_lr(config(lr=3.0, final_lr_frac=1.0), step, 10) for step in range(10)} == {3.0}
    assert outer_lr(config(warmup_steps=5), 2, 3) == pytest.approx(0.6)  # a run shorter than its warm-up


def test_first_step_is_the_mean_of_unit_gradients() -> None:
    update = OuterUpdate(THETA, config(lr=0.5), steps=1)
    grads = {0: gradient(0), 1: gradient(1, 1000.0), 2: gradient(2, 1e-3)}
    numbers = update.apply(0, grads)
    mean = sum(unit(grads[i]) for i in range(3)) / 3
    torch.testing.assert_close(flatten(update.theta), flatten(THETA) - 0.5 * mean)
    assert numbers["grad_norm"] == pytest.approx(float(mean.norm()), rel=1e-5)
    assert (numbers["lr"], numbers["clipped_frac"]) == (0.5, 0.0)


def test_the_scale_of_one_shard_changes_nothing() -> None:
    plain, scaled = (OuterUpdate(THETA, config(lr=0.1), steps=10) for _ in range(2))
    for step in range(10):
        plain.apply(step, {0: gradient(step), 1: gradient(100 + step)})
        scaled.apply(step, {0: gradient(step), 1: gradient(100 + step, 1000.0)})
        torch.testing.assert_close(flatten(scaled.theta), flatten(plain.theta), rtol=1e-4, atol=1e-5)


def test_balance_divides_by_the_running_root_mean_square() -> None:
    update, theta = OuterUpdate(THETA, config(), steps=3), flatten(THETA)
    norms, energy, count = (2.0, 6.0, 1.0), 0.0, 0.0
    for step, norm in enumerate(norms):
        grad = gradient(step)
        grad = {name: value * norm / flatten(grad).norm() for name, value in grad.items()}
        update.apply(step, {7: grad})
        energy, count = 0.9 * energy + norm**2, 0.9 * count + 1
        theta = theta - outer_lr(config(), step, 3) * flatten(grad) / math.sqrt(energy / count)
        torch.testing.assert_close(flatten(update.theta), theta)


def test_a_zero_gradient_is_no_step_and_no_nan() -> None:
    update = OuterUpdate(THETA, config(clip_norm=1.0), steps=1)
    numbers = update.apply(0, {0: {name: torch.zeros_like(value) for name, value in THETA.items()}})
    assert torch.equal(flatten(update.theta), flatten(THETA))
    assert numbers["grad_norm"] == 0.0


def test_order_of_arrival_changes_no_bit() -> None:
    grads = {i: gradient(i, 10.0 ** (i - 3)) for i in range(6)}
    one, two = (OuterUpdate(THETA, config(), steps=1) for _ in range(2))
    one.apply(0, grads)
    two.apply(0, dict(reversed(grads.items())))
    assert torch.equal(flatten(one.theta), flatten(two.theta))


def test_clipping_by_norm_and_by_value() -> None:
    grad = {"w": torch.tensor([[3.0, -0.1], [0.2, 0.0]]), "b": torch.tensor(-4.0)}
    direction = unit(grad)
    short = OuterUpdate(THETA, config(clip_norm=0.25), steps=1)
    numbers = short.apply(0, {0: grad})
    torch.testing.assert_close(flatten(THETA) - flatten(short.theta), 0.25 * direction)
    assert numbers["clipped_frac"] == 1.0
    assert numbers["grad_norm"] == pytest.approx(1.0, rel=1e-5)  # before clipping
    flat = OuterUpdate(THETA, config(clip_value=0.3), steps=1)
    numbers = flat.apply(0, {0: grad})
    torch.testing.assert_close(flatten(THETA) - flatten(flat.theta), direction.clamp(-0.3, 0.3))
    assert numbers["clipped_frac"] == pytest.approx(2 / 5)
    loose = OuterUpdate(THETA, config(clip_norm=5.0, clip_value=2.0), steps=1)
    assert loose.apply(0, {0: grad})["clipped_frac"] == 0.0


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_optimizers_are_torchs(name: str) -> None:
    c = config(name=name, lr=0.1, betas=(0.8, 0.95), weight_decay=0.2, warmup_steps=2, final_lr_frac=0.1)
    update = OuterUpdate(THETA, c, steps=6)
    vector = torch.nn.Parameter(flatten(THETA).clone())
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[name]
    twin = kind([vector], lr=0.1, weight_decay=0.2, **({} if name == "sgd" else {"betas": (0.8, 0.95)}))
    for step in range(6):
        grad = gradient(step)
        length = flatten(grad).norm()
        update.apply(step, {0: {k: v / length for k, v in grad.items()}})  # norm 1: balance leaves it as it is
        twin.param_groups[0]["lr"] = outer_lr(c, step, 6)
        vector.grad = unit(grad)
        twin.step()
        torch.testing.assert_close(flatten(update.theta), vector.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_state_continues_bit_for_bit(name: str) -> None:
    from metaopt.outer.blobs import from_torch, to_torch

    c = config(name=name, lr=0.1, weight_decay=0.1, clip_norm=0.5, warmup_steps=3)
    whole, half = (OuterUpdate(THETA, c, steps=8) for _ in range(2))
    thetas = []
    for step in range(8):
        whole.apply(step, {0: gradient(step), 2: gradient(50 + step, 30.0)})
        thetas.append(flatten(whole.theta))
    for step in range(4):
        half.apply(step, {0: gradient(step), 2: gradient(50 + step, 30.0)})
    again = OuterUpdate(THETA, c, steps=8)
    again.load(half.theta, from_torch(to_torch(half.state())))
    for step in range(4, 8):
        again.apply(step, {0: gradient(step), 2: gradient(50 + step, 30.0)})
        assert torch.equal(flatten(again.theta), thetas[step])


def test_theta_is_a_copy() -> None:
    update = OuterUpdate(THETA, config(), steps=1)
    update.theta["w"].zero_()
    assert torch.equal(flatten(update.theta), flatten(THETA))
    before = update.theta
    update.apply(0, {0: gradient(0)})
    assert torch.equal(flatten(before), flatten(THETA))


def test_descends_a_quadratic_meta_loss() -> None:
    target = gradient(9)
    update = OuterUpdate(THETA, config(name="adam", lr=0.1, final_lr_frac=0.0), steps=150)
    for step in range(150):
        update.apply(step, {0: {k: update.theta[k] - target[k] for k in THETA}})
    start = float((flatten(THETA) - flatten(target)).norm())
    assert float((flatten(update.theta) - flatten(target)).norm()) < 0.05 * start
