"""RAdam, Lion, Muon and Adafactor: torch's own classes step by step, closed forms, and what only the vectorised form could get wrong."""

import math

import pytest
import torch

from metaopt.learners.update_rules.adafactor import Adafactor
from metaopt.learners.update_rules.classic import AdamW
from metaopt.learners.update_rules.lion import Lion
from metaopt.learners.update_rules.muon import Muon
from metaopt.learners.update_rules.radam import RAdam
from metaopt.learners.update_rules.rule import apply_rule
from metaopt.testing import check_update_rule

STEPS = 14
SHAPES = [(), (6,), (5, 3), (3, 5), (4, 4), (2, 3, 4), (2, 3, 2, 2)]


def draws(shape, count=STEPS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64)


def ours(rule, start, grads, rates, theta=None):
    """Return the parameter after every update [T, ...]."""
    param, state, path = start, rule.init_state(start), []
    for t, grad in enumerate(grads):
        param, state = apply_rule(rule, theta or {}, param, grad, state, torch.tensor(t), rates[t])
        path.append(param)
    return torch.stack(path)


def theirs(make, start, grads, rates):
    param = start.clone().requires_grad_()
    optimizer, path = make([param]), []
    for grad, rate in zip(grads, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        param.grad = grad.clone()
        optimizer.step()
        path.append(param.detach().clone())
    return torch.stack(path)


def assert_equal_paths(rule, make, shape, rates=None, start_scale=1.0):
    start, grads = start_scale * draws(shape, 1, seed=1)[0], draws(shape)
    rates = rates or [rule.hyperparameters["lr"] * (1 - t / (2 * STEPS)) for t in range(STEPS)]  # a schedule's job
    torch.testing.assert_close(ours(rule, start, grads, rates), theirs(make, start, grads, rates), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beta2", [0.999, 0.9, 0.5])  # rectified from step 6 on, from step 7 on, never
def test_radam_is_torchs(shape, beta2):
    rule = RAdam(lr=0.1, beta2=beta2, weight_decay=0.01)
    assert_equal_paths(rule, lambda p: torch.optim.RAdam(p, betas=(0.9, beta2), weight_decay=0.01), shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("start_scale", [1.0, 1e-5])  # below the smallest size that steps are relative to
@pytest.mark.parametrize("lr", [0.01, 0.5])  # 0.5 is capped from the fifth update on
def test_adafactor_is_torchs(shape, start_scale, lr):
    rule = Adafactor(lr=lr, weight_decay=0.1)
    assert_equal_paths(rule, lambda p: torch.optim.Adafactor(p, lr=lr, weight_decay=0.1), shape, [lr] * STEPS, start_scale)


def test_adafactor_with_other_options_is_torchs():
    rule = Adafactor(lr=0.02, beta2_decay=-0.5, clip=1.5)
    assert_equal_paths(rule, lambda p: torch.optim.Adafactor(p, lr=0.02, beta2_decay=-0.5, d=1.5), (4, 6), [0.02] * STEPS)


@pytest.fixture
def exact_muon(monkeypatch):
    """torch's Muon without its rounding to sixteen bits."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    return lambda params: torch.optim.Muon(params, momentum=0.9, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 6)])
def test_muon_of_a_matrix_is_torchs(shape, exact_muon):
    assert_equal_paths(Muon(lr=0.1, momentum=0.9, weight_decay=0.2), exact_muon, shape)


def test_muon_in_sixteen_bits_is_near():
    start, grads, rates = draws((6, 4), 1, seed=1)[0], draws((6, 4)), [0.1] * STEPS
    rounded = theirs(lambda p: torch.optim.Muon(p, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), start, grads, rates)
    assert float((ours(Muon(lr=0.1), start, grads, rates) - rounded).abs().max()) < 0.05  # of steps that add up to about 1


@pytest.mark.parametrize("shape", [(), (6,)])
def test_muon_of_a_vector_is_adamw(shape):
    rule = Muon(lr=0.1, weight_decay=0.2)
    assert_equal_paths(rule, lambda p: torch.optim.AdamW(p, betas=(0.9, 0.95), weight_decay=0.2), shape)


def test_muon_of_an_embedding_is_adamw():
    rule, grads = Muon(weight_decay=0.2), draws((5, 3))
    state, other = rule.init_embedding_state(grads[0]), AdamW(beta2=0.95, weight_decay=0.2)
    theirs_state = other.init_state(grads[0])
    for t, grad in enumerate(grads[:3]):
        one, state = rule.update({}, grads[5], grad, state, torch.tensor(t))
        two, theirs_state = other.update({}, grads[5], grad, theirs_state, torch.tensor(t))
        assert torch.equal(one, two)


def test_muon_of_a_kernel_is_muon_of_its_matrix():
    grads, start, rates = draws((4, 3, 2, 2)), draws((4, 3, 2, 2), 1, seed=1)[0], [0.1] * STEPS
    flat = ours(Muon(), start.reshape(4, 12), grads.reshape(STEPS, 4, 12), rates)
    torch.testing.assert_close(ours(Muon(), start, grads, rates).reshape(STEPS, 4, 12), flat, rtol=0, atol=0)


def test_muon_keeps_directions_and_evens_sizes():
    """By the singular value decomposition: same singular vectors, values near 1 times 0.2 sqrt(longer side)."""
    u, v = (torch.linalg.qr(draws((8, 8), 1, seed=s)[0])[0][:, :4] for s in (1, 2))
    grad = u @ torch.diag(torch.tensor([1.0, 0.5, 0.1, 0.02], dtype=torch.float64)) @ v.T
    direction, _ = Muon(weight_decay=0.0).update({}, grad, grad, Muon().init_state(grad), torch.tensor(0))
    inside = u.T @ direction @ v / (0.2 * math.sqrt(8))
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), rtol=0, atol=1e-9)
    assert 0.6 < float(inside.diagonal().min()) <= float(inside.diagonal().max()) < 1.25


def test_lion_by_hand():
    """Algorithm 2 of the paper, written with numbers."""
    rule, (x, m) = Lion(lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.5), (2.0, 0.0)
    grads = [1.0, -0.05, -30.0, 0.0, 0.0]
    path = ours(rule, torch.tensor(2.0, dtype=torch.float64), torch.tensor(grads, dtype=torch.float64), [0.1] * 5)
    for t, g in enumerate(grads):
        x -= 0.1 * (math.copysign(1.0, 0.9 * m + 0.1 * g) + 0.5 * x)
        m = 0.99 * m + 0.01 * g
        assert float(path[t]) == pytest.approx(x, abs=1e-12)


def test_lion_ignores_the_scale_of_the_loss():
    start, grads, rates = draws((5, 3), 1, seed=1)[0], draws((5, 3)), [0.1] * STEPS
    assert torch.equal(ours(Lion(), start, grads, rates), ours(Lion(), start, 1e6 * grads, rates))


@pytest.mark.parametrize("rule", [RAdam(), Lion(), Muon(), Adafactor()], ids=lambda rule: rule.name)
def test_they_keep_the_contract(rule):
    check_update_rule(rule)


@pytest.mark.parametrize("rule", [RAdam(), Muon(), Adafactor()], ids=lambda rule: rule.name)
@pytest.mark.parametrize("shape", [(6,), (4, 3)])
def test_derivatives_in_every_hyperparameter_are_central_differences(rule, shape):
    point = {"lr": 0.05, "weight_decay": 0.1, "beta1": 0.85, "beta2": 0.95, "eps": 0.05, "momentum": 0.8, "matrix_rms": 0.3}
    point |= {"beta2_decay": -0.6, "clip": 0.7}
    theta = {name: torch.tensor(point[name], dtype=torch.float64, requires_grad=True) for name in rule.hyperparameters}
    start, grads = draws(shape, 1, seed=1)[0], draws(shape)

    def end(theta):
        return ours(rule, start, grads, [theta["lr"]] * STEPS, theta)[-1].square().sum()

    found = torch.autograd.grad(end(theta), list(theta.values()), allow_unused=True)
    for (name, value), derivative in zip(theta.items(), found, strict=True):
        high, low = (float(end({**theta, name: value.detach() + sign * 1e-6}).detach()) for sign in (1, -1))
        got = 0.0 if derivative is None else float(derivative)  # Muon has some for matrices and some for vectors only
        assert got == pytest.approx((high - low) / 2e-6, rel=1e-5, abs=1e-7), name
