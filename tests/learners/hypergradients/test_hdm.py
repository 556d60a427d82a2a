"""HDM-Best on deterministic convex losses: descent, its own formulas step by step, null steps, bad candidates."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.func import grad, vmap

from metaopt import inner, tasks
from metaopt.learners import WHOLE_MODEL
from metaopt.learners.hypergradients.hdm import HDMBest
from tests.learners.hypergradients.quadratics import Quadratic, run


def norm(tree):
    return torch.cat([leaf.reshape(-1) for leaf in tree.values()]).norm()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("condition", [10.0, 100.0, 1000.0])
def test_the_loss_never_rises_and_beats_the_best_constant_step(condition, turned, scale):
    """At equal gradients: gradient descent has two steps for one of HDM-Best, and its best step size in hindsight."""
    task = Quadratic(condition, turned, scale)
    losses, carries = run(HDMBest(), task, 100)
    assert all(after <= before for before, after in itertools.pairwise(losses))
    assert losses[-1] < task.best_constant(200)
    assert losses[-1] < 0.5 * task.best_constant(100)
    curvature = float(carries[-1]["state"]["curvature"])
    assert 0.5 * scale < curvature <= scale * (1 + 1e-6), "the curvature is a lower bound of the largest eigenvalue"


def test_a_null_step_leaves_x_bitwise_and_learns():
    losses, carries = run(HDMBest(lr=30.0), Quadratic(), 60)
    nulls = 0
    for t, (before, after) in enumerate(itertools.pairwise(carries)):
        if losses[t + 1] == losses[t]:
            nulls += 1
            assert same(before["params"], after["params"])
            assert not same(before["state"]["sizes"], after["state"]["sizes"])
        else:
            assert losses[t + 1] < losses[t]
            assert not same(before["params"], after["params"])
        assert same(after["state"]["previous"], before["params"])
    assert 3 < nulls < 50, "this step size makes both kinds of steps"


def by_hand(task, steps, lr=1.0, momentum_lr=1.0):
    """The method in the letters of its papers, on flat vectors."""

    def f(x):
        return task.loss({"x": x[:6], "y": x[6:]})

    x = torch.cat(list(task.init(torch.tensor(0)).values()))
    x_old, p, total_p, b, total_b, smoothness, path = x, torch.zeros_like(x), torch.zeros_like(x), 0.95, 0.0, 0.0, []
    for t in range(steps):
        g = grad(f)(x)
        trial = x - p * g + b * (x - x_old) if t else x - 2.220446049250313e-16 ** (1 / 3) * (1 + x.norm()) * g / g.norm()
        g_trial = grad(f)(trial)
        smoothness = max(smoothness, float((g_trial - g).norm() / (trial - x).norm()))
        scale = g @ g + smoothness**2 * (x - x_old) @ (x - x_old) / 4
        # The derivatives of f(trial) / scale, by autograd.
        slope_p = grad(lambda p, x=x, g=g, x_old=x_old, b=b: f(x - p * g + b * (x - x_old)))(p) if t else -g_trial * g
        slope_b = grad(lambda b, x=x, g=g, x_old=x_old, p=p: f(x - p * g + b * (x - x_old)))(torch.tensor(b).double()) if t else 0.0
        slope_p, slope_b = slope_p / scale, slope_b / scale
        total_p, total_b = total_p + slope_p**2, total_b + slope_b**2
        p = (p - lr / smoothness * slope_p / total_p.sqrt()).clamp(min=0)
        b = float(torch.as_tensor(b - momentum_lr * slope_b / max(float(total_b) ** 0.5, 1e-300)).clamp(0.0, 0.9995))
        x, x_old = (trial if t and f(trial) < f(x) else x), x
        path.append(torch.cat([x, p, torch.tensor([b, smoothness]).double()]))
    return torch.stack(path)


@pytest.mark.parametrize("rates", [(1.0, 1.0), (0.3, 0.1), (5.0, 1.0)])
def test_every_step_is_the_papers(rates):
    task = Quadratic(condition=30.0)
    _, carries = run(HDMBest(lr=rates[0], momentum_lr=rates[1]), task, 15)
    found = [
        torch.cat([*c["params"].values(), *c["state"]["sizes"].values(), c["state"]["momentum"][None], c["state"]["curvature"][None]])
        for c in carries[1:]
    ]
    torch.testing.assert_close(torch.stack(found), by_hand(task, 15, *rates), rtol=1e-7, atol=1e-9)


def test_two_gradients_a_step():
    class Counted(Quadratic):
        calls = 0

        def gradients(self, params, batch, state):
            self.calls += 1
            return super().gradients(params, batch, state)

    task = Counted()
    run(HDMBest(), task, 7)
    assert task.calls == 14


def test_a_step_size_of_zero_moves_nothing():
    losses, carries = run(HDMBest(lr=0.0), Quadratic(), 10)
    assert len(set(losses)) == 1
    assert same(carries[0]["params"], carries[-1]["params"])


class Fenced(Quadratic):
    """The quadratic inside a fence, with nothing finite outside."""

    def loss(self, params, batch=None):
        inside = norm(params) < 5.0
        return torch.where(inside, super().loss(params), torch.nan)


def test_a_candidate_that_is_not_finite_is_a_null_step_with_smaller_sizes():
    task, learner = Fenced(condition=3.0), HDMBest(lr=10.0)
    losses, carries = run(learner, task, 40)
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert losses[-1] < 1e-3 * losses[0]
    start = carries[1]
    assert not torch.isfinite(
        task.loss(learner.candidate(start["params"], task.gradients(start["params"], {}, {})[0], start["state"], {"x": 1, "y": 1}))
    )
    for name, sizes in carries[2]["state"]["sizes"].items():
        assert torch.equal(sizes, 0.5 * start["state"]["sizes"][name])
    assert torch.equal(carries[2]["state"]["momentum"], start["state"]["momentum"])


class Hinge(Quadratic):
    """Straight on the way to its minimum."""

    def loss(self, params, batch=None):
        return sum(torch.nn.functional.huber_loss(value, torch.ones_like(value), delta=1e-3) for value in params.values())


def test_a_straight_loss_is_probed_further_until_it_bends():
    losses, carries = run(HDMBest(), Hinge(), 120)
    assert float(carries[2]["state"]["curvature"]) < 1e-6, "the loss is straight where it begins"
    assert losses[-1] < 0.05 * losses[0]


def test_step_scales_freeze_and_shrink():
    frozen = run(HDMBest(), Quadratic(step_scales={"x": 0.0}), 20)[1]
    assert torch.equal(frozen[0]["params"]["x"], frozen[-1]["params"]["x"])
    assert not torch.equal(frozen[0]["params"]["y"], frozen[-1]["params"]["y"])
    whole, half = (run(HDMBest(), Quadratic(step_scales=scales), 2)[1] for scales in ({}, {"x": 0.5}))
    moved = [carries[2]["params"]["x"] - carries[0]["params"]["x"] for carries in (whole, half)]
    torch.testing.assert_close(moved[1], 0.5 * moved[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_keeps_the_dtype_and_learns(dtype):
    losses, carries = run(HDMBest(), Quadratic(dtype=dtype), 50)
    assert {leaf.dtype for leaf in torch.utils._pytree.tree_leaves(carries[-1]["state"])} == {dtype}
    assert losses[-1] < 1e-4 * losses[0]


def test_runs_map_over_starts_and_rates():
    task, learner = Quadratic(), HDMBest()

    def final(rate, shift):
        carry = learner.init({}, task, torch.tensor(0))
        carry = {**carry, "params": {name: value + shift for name, value in carry["params"].items()}}
        for _ in range(6):
            carry, record = learner.advance({"lr": rate}, task, carry, {})
        return record.loss

    rates, shifts = torch.tensor([1.0, 0.3], dtype=torch.float64), torch.tensor([0.0, 0.5], dtype=torch.float64)
    together = vmap(final)(rates, shifts)
    torch.testing.assert_close(together, torch.stack([final(*both) for both in zip(rates, shifts, strict=True)]), rtol=1e-9, atol=0)


def test_it_runs_through_the_runner_and_is_data():
    assert WHOLE_MODEL["hdm_best"] is HDMBest
    learner = HDMBest()
    assert hash(learner) == hash(replace(learner))
    assert learner.hyperparameters == {"lr": 1.0, "momentum_lr": 1.0}
    family = tasks.get("quadratic")
    task = family.build(family.sample("8x4-minimum", 1, (40, 40))).to(dtype=torch.float64)
    result = inner.run(learner, {}, [task] * 2, [5, 6], 40, eval_every=20)
    assert bool(torch.isfinite(result.loss).all())
    alone = inner.run(learner, {}, [task], [6], 40, eval_every=20)
    torch.testing.assert_close(result.loss[:, 1], alone.loss[:, 0], rtol=1e-7, atol=1e-12)


def test_derivatives_through_a_step_that_has_no_gradient_are_finite():
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    params = {"x": torch.ones(6, dtype=torch.float64), "y": torch.ones(6, dtype=torch.float64)}  # the minimum
    learner, task = HDMBest(), Quadratic()
    carry = {"params": params, "state": learner.init_state({}, params), "t": torch.tensor(0)}
    for _ in range(2):
        carry, _ = learner.advance({"lr": rate}, task, carry, {})
    total = sum(value.sum() for value in carry["params"].values()) + sum(value.sum() for value in carry["state"]["sizes"].values())
    assert torch.isfinite(torch.autograd.grad(total + 0.0 * rate, rate)[0])
