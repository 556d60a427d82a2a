"""MetaOptimize: its trace against autograd, its base against AdamW, and step sizes that go where they should."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.func import grad, jacrev, vmap

from metaopt import inner, tasks
from metaopt.errors import ConfigError
from metaopt.learners import WHOLE_MODEL
from metaopt.learners.hypergradients.metaoptimize import MetaOptimize
from tests.learners.hypergradients.quadratics import Quadratic, run

DOUBLE = {"dtype": torch.float64}


def steps(learner, grads, start, scales=1.0):
    """Return the states and params after each of a list of gradients of one weight."""
    h, params = learner.hypers({}), {"w": start}
    state, found = learner.init_state(h, params), []
    for t, one in enumerate(grads):
        params, state = learner.update(h, params, {"w": one}, state, torch.tensor(t), h["lr"], {"w": scales})
        found.append((params["w"], state))
    return found


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("scales", [1.0, 0.5])
def test_the_trace_is_the_derivative_of_the_weight(weight_decay, scales):
    """In one dimension, undiscounted and at a fixed beta, with gradients that do not depend on the weight: autograd says the same."""
    learner = MetaOptimize(lr=0.1, weight_decay=weight_decay, gamma=1.0, meta_lr=0.0)
    start = torch.tensor([0.7], **DOUBLE)
    grads = torch.randn(12, 1, generator=torch.Generator().manual_seed(0), **DOUBLE)

    def last(beta):
        return steps(replace_lr(learner, beta), grads, start, scales)[-1][0]

    trace = steps(learner, grads, start, scales)[-1][1]["trace"]["w"]
    torch.testing.assert_close(trace, -jacrev(last)(torch.zeros((), **DOUBLE)), rtol=1e-12, atol=1e-14)


def replace_lr(learner, beta):
    """The same learner at lr e^beta, in a form that autograd passes through."""

    class At:
        def hypers(self, theta):
            return {**learner.hypers(theta), "lr": learner.lr * beta.exp()}

        init_state, update = staticmethod(learner.init_state), staticmethod(learner.update)

    return At()


def test_gamma_discounts_what_is_past():
    """With a constant direction of 1 and no weight decay the trace is a geometric sum."""
    learner = MetaOptimize(lr=0.1, gamma=0.9, meta_lr=0.0, eps=0.0)
    state = steps(learner, torch.ones(6, 1, **DOUBLE), torch.zeros(1, **DOUBLE))[-1][1]
    torch.testing.assert_close(state["trace"]["w"], torch.tensor([0.1 * (1 - 0.9**6) / (1 - 0.9)], **DOUBLE), rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_without_meta_steps_it_is_torchs_adamw(weight_decay):
    task = Quadratic()
    losses, carries = run(MetaOptimize(lr=0.05, weight_decay=weight_decay, meta_lr=0.0), task, 20)
    params = {name: value.clone().requires_grad_() for name, value in task.init(torch.tensor(0)).items()}
    optimizer = torch.optim.AdamW(params.values(), lr=0.05, weight_decay=weight_decay)
    for loss in losses[:-1]:
        optimizer.zero_grad()
        found = task.loss(params)
        found.backward()
        assert float(found.detach()) == pytest.approx(loss, rel=1e-10)
        optimizer.step()
    for name, value in params.items():
        torch.testing.assert_close(carries[-1]["params"][name], value.detach(), rtol=1e-10, atol=1e-12)


def test_beta_follows_lion():
    """The slopes are those of autograd, the sign is taken before the momentum moves, and a beta acts from the next step on."""
    learner = MetaOptimize(lr=0.2, meta_lr=0.01, meta_momentum=0.6, meta_interpolation=0.7)
    task = Quadratic(condition=5.0)
    _, carries = run(learner, task, 30)
    momentum, beta, seen = torch.zeros((), **DOUBLE), torch.zeros((), **DOUBLE), set()
    for before, after in itertools.pairwise(carries):
        grads = grad(task.loss)(before["params"])
        slope = sum((grads[name] * before["state"]["trace"][name]).sum() for name in grads)
        sign = torch.sign(0.7 * momentum + 0.3 * slope)
        seen.add((float(sign), float(torch.sign(slope))))
        beta, momentum = beta + 0.01 * sign, 0.6 * momentum + 0.4 * slope
        torch.testing.assert_close(after["state"]["beta"]["model"], beta, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(after["state"]["momentum"]["model"], momentum, rtol=1e-12, atol=1e-15)
    assert {(1.0, 1.0), (-1.0, -1.0)} <= seen, "the run has slopes of both signs"
    assert (1.0, -1.0) in seen or (-1.0, 1.0) in seen, "and steps at which the momentum outweighs the slope"


def test_the_sign_is_that_before_the_momentum_moves():
    """A slope of -1.5 times the momentum outweighs it only where the momentum has taken it in already."""
    learner = MetaOptimize(lr=0.1, meta_lr=0.01, meta_momentum=0.6, meta_interpolation=0.7)
    grads, start = [torch.ones(1, **DOUBLE)] * 5, torch.zeros(1, **DOUBLE)
    before = steps(learner, grads, start)[-1][1]
    against = -1.5 * before["momentum"]["model"] / before["trace"]["w"]
    after = steps(learner, [*grads, against], start)[-1][1]
    torch.testing.assert_close(after["beta"]["model"] - before["beta"]["model"], torch.tensor(0.01, **DOUBLE), rtol=1e-9, atol=0)
    assert float(after["momentum"]["model"]) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_step_scales_freeze_and_shrink(scale):
    whole, part = (run(MetaOptimize(lr=0.1), Quadratic(step_scales=scales), 1)[1] for scales in ({}, {"x": scale}))
    moved = [carries[1]["params"]["x"] - carries[0]["params"]["x"] for carries in (whole, part)]
    torch.testing.assert_close(moved[1], scale * moved[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(part[1]["state"]["trace"]["x"], -moved[1], rtol=1e-12, atol=1e-15)
    assert torch.equal(part[1]["params"]["y"], whole[1]["params"]["y"])


@pytest.mark.parametrize("scope", ["global", "per_tensor"])
def test_small_steps_grow_large_ones_shrink(scope):
    for lr, way in ((1e-4, 1), (3.0, -1)):
        task = Quadratic(condition=3.0)
        betas = run(MetaOptimize(lr=lr, meta_lr=0.02, scope=scope), task, 100)[1][-1]["state"]["beta"]
        assert set(betas) == ({"model"} if scope == "global" else {"x", "y"})
        assert all(way * float(beta) > 0.5 for beta in betas.values())


def test_it_mends_a_step_size_that_is_too_small():
    task = Quadratic()
    plain = run(MetaOptimize(lr=1e-3, meta_lr=0.0), task, 150)[0]
    learned = run(MetaOptimize(lr=1e-3, meta_lr=0.03), task, 150)[0]
    assert learned[-1] < 0.1 * plain[-1]


def test_a_tensor_alone_has_the_beta_of_a_model_alone():
    """Each block of `per_tensor` is a run of its own where the loss separates."""
    task = Quadratic(turned=False)
    both = run(MetaOptimize(lr=0.05, scope="per_tensor"), task, 20)[1][-1]
    frozen = run(MetaOptimize(lr=0.05), Quadratic(turned=False, step_scales={"y": 0.0}), 20)[1][-1]
    torch.testing.assert_close(both["params"]["x"], frozen["params"]["x"], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(both["state"]["beta"]["x"], frozen["state"]["beta"]["model"], rtol=0, atol=1e-15)


def test_a_step_size_of_zero_moves_nothing():
    task = Quadratic()
    _, carries = run(MetaOptimize(lr=0.0, weight_decay=0.1), task, 10)
    assert all(torch.equal(carries[0]["params"][name], carries[-1]["params"][name]) for name in ("x", "y"))


def test_runs_map_over_rates_and_through_the_runner():
    task, learner = Quadratic(), MetaOptimize()

    def final(rate):
        carry = learner.init({}, task, torch.tensor(0))
        for _ in range(8):
            carry, record = learner.advance({"lr": rate}, task, carry, {})
        return record.loss

    rates = torch.tensor([0.1, 0.01], **DOUBLE)
    torch.testing.assert_close(vmap(final)(rates), torch.stack([final(rate) for rate in rates]), rtol=1e-12, atol=0)
    family = tasks.get("quadratic")
    real = family.build(family.sample("8x4-minimum", 1, (40, 40))).to(dtype=torch.float64)
    together = inner.run(learner, {"lr": rates}, [real] * 2, [5, 6], 40, eval_every=20, theta_stacked=True)
    alone = inner.run(replace(learner, lr=0.01), {}, [real], [6], 40, eval_every=20)
    torch.testing.assert_close(together.loss[:, 1], alone.loss[:, 0], rtol=1e-9, atol=1e-12)


def test_it_is_data_and_says_what_it_does_not_take():
    assert WHOLE_MODEL["metaoptimize"] is MetaOptimize
    assert hash(MetaOptimize()) == hash(replace(MetaOptimize()))
    assert all(isinstance(value, float) for value in MetaOptimize().hyperparameters.values())
    with pytest.raises(ConfigError, match=r"^scope must be one of global, per_tensor, got 'layer'$"):
        MetaOptimize(scope="layer")
    with pytest.raises(ConfigError, match=r"^gamma must be in \[0, 1\], got 1.5$"):
        MetaOptimize(gamma=1.5)


def test_zero_gradients_give_finite_derivatives():
    rate, learner = torch.tensor(0.1, **DOUBLE, requires_grad=True), MetaOptimize()
    params = {"w": torch.zeros(3, **DOUBLE)}
    h = learner.hypers({"lr": rate})
    state = learner.init_state(h, params)
    for t in range(2):
        params, state = learner.update(h, params, {"w": torch.zeros(3, **DOUBLE)}, state, torch.tensor(t), rate, {"w": 1.0})
    assert torch.isfinite(torch.autograd.grad(params["w"].sum() + 0.0 * rate, rate)[0])
