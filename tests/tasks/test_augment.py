"""Reparametrisation changes the variables and nothing else; sources of episodes are pure."""

from collections import Counter

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.tasks.source import TaskSource
from metaopt.tasks.task import stack_tasks

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
    again = tasks.reparametrise(group[0], 5, RANGE)
    assert again.program != group[0].program  # nests


def source(**changes: object) -> TaskSource:
    arguments = {"family": tasks.get("quadratic"), "template": "10x1-gradient", "horizon": (5, 50), "seed": 0} | changes
    return TaskSource(**arguments)


def test_a_source_is_a_pure_function_of_particle_and_episode() -> None:
    later, first = source().task(2, 7), source().task(2, 7)
    assert all(torch.equal(later.numbers[k], first.numbers[k]) for k in first.numbers)
    hessians = {tuple(source().task(p, e).numbers["hessian"].reshape(-1).tolist()) for p in range(3) for e in range(3)}
    assert len(hessians) == 9
    assert not torch.equal(source(seed=1).task(2, 7).numbers["hessian"], first.numbers["hessian"])
    assert source().run_seed(2, 7) not in {source().draw(2, 7), source(seed=1).run_seed(2, 7), source().run_seed(7, 2)}


def test_a_source_covers_its_horizons_and_reparametrises() -> None:
    horizons = Counter(int(source().task(0, e).horizon) for e in range(150))
    assert min(horizons) < 8
    assert 40 < max(horizons) <= 50
    changed = source(reparametrisation=RANGE).task(0, 3)
    plain = source().task(0, 3)
    assert torch.equal(changed.numbers["hessian"], plain.numbers["hessian"])
    assert RANGE[0] <= float(changed.numbers["reparametrisation"]) <= RANGE[1]
    assert 0 <= source().stagger(0) < 1
