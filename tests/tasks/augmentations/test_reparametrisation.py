"""Reparametrisation changes the variables and nothing else, at every level."""

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import TaskError
from metaopt.tasks.augmentations import EvolutionGradients, Reparametrisation, augment
from metaopt.tasks.task import Task, stack_tasks
from tests.tasks.augmentations.bench import bowl, digits

RANGE = (0.05, 20.0)


def both(name: str, template: str):
    family = tasks.get(name)
    plain = family.build(family.sample(template, 0, (40, 40))).to(dtype=torch.float64)
    changed = tasks.reparametrise(plain, 11, RANGE)
    return plain, changed, float(changed.numbers["reparametrisation"])


CASES = [("quadratic", "8x4-minimum"), ("digits_mlp", "16-tanh-b32"), ("digits_conv", "12-tanh-b48")]


@pytest.mark.parametrize(("name", "template"), CASES)
def test_losses_stay_and_gradients_scale(name: str, template: str) -> None:
    plain, changed, s = both(name, template)
    key = seeds.key("run")
    w, w_scaled = plain.init(key), changed.init(key)
    assert all(torch.allclose(w_scaled[k] * s, w[k], rtol=1e-12) for k in w)
    for draw in ("batch", "heldout"):
        data, data_scaled = getattr(plain, draw)(key, torch.tensor(3)), getattr(changed, draw)(key, torch.tensor(3))
        assert all(torch.equal(data[k], data_scaled[k]) for k in data)
        grads, loss = torch.func.grad_and_value(plain.loss)(w, data)
        grads_scaled, loss_scaled = torch.func.grad_and_value(changed.loss)(w_scaled, data)
        torch.testing.assert_close(loss_scaled, loss, rtol=1e-10, atol=0)
        torch.testing.assert_close(changed.normalise(loss_scaled), plain.normalise(loss), rtol=1e-10, atol=0)
        for k in w:
            torch.testing.assert_close(grads_scaled[k], s * grads[k], rtol=1e-8, atol=1e-12)
    assert changed.program.cap == plain.program.cap


def test_matched_rates_follow_the_same_trajectory() -> None:
    plain, changed, s = both("quadratic", "8x4-minimum")
    assert abs(s - 1) > 0.1
    # gradient descent in w / s with lr / s^2, and Adam with lr / s (its epsilon being small), are those in w with lr
    for name, lr, power, options in (("sgd", 0.05, 2, {}), ("adam", 0.05, 1, {"eps": 1e-30})):
        one = inner.run(learners.get(name, lr=lr, **options), {}, [plain], [0], 40).loss
        two = inner.run(learners.get(name, lr=lr / s**power, **options), {}, [changed], [0], 40).loss
        torch.testing.assert_close(two, one, rtol=1e-8, atol=1e-12)


def test_scales_are_drawn_from_the_seed_and_stack() -> None:
    family = tasks.get("quadratic")
    group = [tasks.reparametrise(family.build(family.sample("10x1-none", i, (9, 9))), i, RANGE) for i in range(300)]
    factors = stack_tasks(group).numbers["reparametrisation"]
    assert RANGE[0] <= float(factors.min()) < 0.1
    assert 10 < float(factors.max()) < RANGE[1]
    assert float(factors.log().mean()) == pytest.approx(0.0, abs=0.4)  # symmetric about 1 in its logarithm
    with pytest.raises(TaskError, match="augmented by reparametrisation already"):
        tasks.reparametrise(group[0], 5, RANGE)


def scales(task: Task, params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: task.numbers[f"reparametrisation.{name}"] for name in params}


@pytest.mark.parametrize("level", ["tensor", "element"])
@pytest.mark.parametrize("plain", [bowl(), digits()], ids=["bowl", "digits"])
def test_each_tensor_or_weight_has_a_scale_of_its_own(level: str, plain: Task) -> None:
    changed = Reparametrisation(level=level, scale=RANGE).apply(plain, 7)
    key = seeds.key("run")
    w, w_scaled = plain.init(key), changed.init(key)
    s = scales(changed, w)
    assert all(s[name].shape == (w[name].shape if level == "element" else ()) for name in w)
    everything = torch.cat([value.reshape(-1) for value in s.values()])
    assert len(set(everything.tolist())) == everything.numel()
    assert RANGE[0] <= float(everything.min()) <= float(everything.max()) <= RANGE[1]
    data = plain.batch(key, torch.tensor(3))
    grads, loss = torch.func.grad_and_value(plain.loss)(w, data)
    again, loss_again, _ = changed.gradients(w_scaled, data, {})
    exact = torch.func.grad(changed.loss)(w_scaled, data)
    torch.testing.assert_close(loss_again, loss, rtol=1e-10, atol=0)
    for name in w:
        torch.testing.assert_close(w_scaled[name] * s[name], w[name], rtol=1e-12, atol=0)
        torch.testing.assert_close(again[name], s[name] * grads[name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(again[name], exact[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("level", ["tensor", "element"])
def test_gradient_descent_goes_as_if_each_weight_had_a_rate_of_its_own(level: str) -> None:
    plain, key = digits(), seeds.key("run")
    changed = Reparametrisation(level=level, scale=(0.5, 2.0)).apply(plain, 3)
    learner = learners.get("sgd", lr=0.1)
    carry, w = learner.init({}, changed, key), plain.init(key)
    s = scales(changed, w)
    for t in range(15):  # w' <- w' - lr s g is, in w = s w', a step of lr s^2
        data = plain.batch(key, torch.tensor(t))
        grads = torch.func.grad(plain.loss)(w, data)
        w = {name: w[name] - 0.1 * s[name] ** 2 * grads[name] for name in w}
        carry, _ = learner.advance({}, changed, carry, data)
        for name in w:
            torch.testing.assert_close(carry["params"][name] * s[name], w[name], rtol=1e-9, atol=1e-11)


def test_element_scales_are_log_uniform() -> None:
    family = tasks.get("quadratic")
    task = family.build(family.sample("8x6-none", 0, (9, 9)))
    drawn = torch.cat(
        [Reparametrisation(level="element", scale=(1e-3, 1e3)).apply(task, i).numbers["reparametrisation.x"].reshape(-1) for i in range(60)]
    )
    share = (drawn.log() / torch.tensor(1e3).log() + 1) / 2  # uniform on [0, 1]
    ordered = share.sort().values
    gap = (ordered - (torch.arange(len(ordered)) + 0.5) / len(ordered)).abs().max()
    assert float(gap) < 1.95 / len(ordered) ** 0.5  # Kolmogorov-Smirnov, 0.1 %


def test_a_level_is_drawn_once_and_each_is_as_likely() -> None:
    settled = [Reparametrisation(level="any").settle(i).level for i in range(300)]
    assert all(70 < settled.count(level) < 130 for level in ("global", "tensor", "element"))
    assert Reparametrisation(level="tensor").settle(5).level == "tensor"
    assert Reparametrisation(level="any").settle(5) == Reparametrisation(level="any").settle(5)


def test_it_scales_the_gradients_that_the_program_hands_out() -> None:
    """An ES perturbation inside has the size of the original weights, and its gradient gets the factor."""
    plain, key = bowl(), seeds.key("run")
    changed = augment(plain, [EvolutionGradients(std=(0.01, 0.01), pairs=(4, 4)), Reparametrisation(scale=RANGE)], 1)
    inside = augment(plain, [EvolutionGradients(std=(0.01, 0.01), pairs=(4, 4))], 1)
    s = changed.numbers["reparametrisation"]
    data = changed.batch(key, torch.tensor(0))
    one, loss, _ = inside.gradients(plain.init(key), data, {})
    two, loss_again, _ = changed.gradients(changed.init(key), data, {})
    torch.testing.assert_close(two["x"], s * one["x"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss_again, loss, rtol=1e-9, atol=0)
