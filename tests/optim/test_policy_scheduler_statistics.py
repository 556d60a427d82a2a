"""The statistics of a step of any optimizer: what they must be by their definitions, from histories of gradients and moves of weights."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaopt import seeds, tasks
from metaopt.errors import ConfigError
from metaopt.learners.policies.controlled import ControlledLearner
from metaopt.learners.policies.knobs import start_values
from metaopt.learners.policies.unitless import NOISE_LIMIT, STATISTICS, mean_statistics
from metaopt.optim import LearnedOptimizer, UnitlessAdam
from metaopt.optim.policy_scheduler_statistics import before_step, check_step, step_statistics
from tests.optim.policies import numbers

SHAPES = ((4, 3), (5,), (2, 2, 2))
STEPS = 5
WHERE = {name: place for place, name in enumerate(STATISTICS)}
OPTIM = torch.optim
# What is stepped, whether decay is added to its gradient, and whether weights move by a rate times something that it knows exactly.
MADE: dict[str, Any] = {
    "Adam": lambda p: OPTIM.Adam(p, lr=0.01),
    "Adam decay": lambda p: OPTIM.Adam(p, lr=0.01, weight_decay=0.3),
    "Adam amsgrad": lambda p: OPTIM.Adam(p, lr=0.01, amsgrad=True),
    "Adam maximize": lambda p: OPTIM.Adam(p, lr=0.01, maximize=True, weight_decay=0.1),
    "Adam fused": lambda p: OPTIM.Adam(p, lr=0.01, fused=True),
    "AdamW": lambda p: OPTIM.AdamW(p, lr=0.01, weight_decay=0.4),
    "AdamW foreach": lambda p: OPTIM.AdamW(p, lr=0.01, weight_decay=0.4, foreach=True),
    "NAdam": lambda p: OPTIM.NAdam(p, lr=0.01, weight_decay=0.2),
    "RAdam": lambda p: OPTIM.RAdam(p, lr=0.01),
    "Adamax": lambda p: OPTIM.Adamax(p, lr=0.01),
    "RMSprop": lambda p: OPTIM.RMSprop(p, lr=0.01),
    "RMSprop all": lambda p: OPTIM.RMSprop(p, lr=0.01, momentum=0.8, centered=True, weight_decay=0.1),
    "Adagrad": lambda p: OPTIM.Adagrad(p, lr=0.01, lr_decay=0.1),
    "Adadelta": lambda p: OPTIM.Adadelta(p),
    "Rprop": lambda p: OPTIM.Rprop(p),
    "SGD": lambda p: OPTIM.SGD(p, lr=0.1),
    "SGD momentum": lambda p: OPTIM.SGD(p, lr=0.1, momentum=0.8, weight_decay=0.2),
    "SGD dampening": lambda p: OPTIM.SGD(p, lr=0.1, momentum=0.8, dampening=0.5),
    "SGD nesterov": lambda p: OPTIM.SGD(p, lr=0.1, momentum=0.8, nesterov=True, foreach=True),
    "UnitlessAdam": lambda p: UnitlessAdam(p, lr=0.01, clip_ratio=1.0),
    "LearnedOptimizer": lambda p: LearnedOptimizer(p, "celo2-base"),
}
COUPLED = {"Adam decay": 0.3, "Adam maximize": 0.1, "NAdam": 0.2, "RMSprop all": 0.1, "SGD momentum": 0.2}


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    return [nn.Parameter(numbers(i, *shape).to(dtype)) for i, shape in enumerate(SHAPES)]


def gradients(step: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [(numbers(10 + 7 * step + i, *shape) + 0.5).to(dtype) * scale for i, shape in enumerate(SHAPES)]


class Walk:
    """Some steps of an optimizer on given gradients, the last one measured."""

    def __init__(self, make: Any, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> None:
        params = parameters(dtype)
        self.optimizer = make(params)
        group = self.optimizer.param_groups[0]
        self.grads: list[list[Tensor]] = []  # of the objective that falls, by step and tensor
        for step in range(STEPS):
            self.before = [param.detach().clone() for param in params]
            for param, grad in zip(params, gradients(step, scale, dtype), strict=True):
                param.grad = grad.clone()
            self.grads.append([-grad if group.get("maximize") else grad for grad in gradients(step, scale, dtype)])
            kept = before_step(self.optimizer) if step == STEPS - 1 else None
            self.optimizer.step()
        assert kept is not None
        row = step_statistics(self.optimizer, kept, STEPS)
        assert row is not None
        self.row = row.double()
        self.moves = [a - b.detach() for a, b in zip(self.before, params, strict=True)]

    def __getitem__(self, name: str) -> float:
        return float(self.row[WHERE[name]])


def mean(values: list[Any]) -> Any:
    return pytest.approx(sum(map(float, values)) / len(values), rel=1e-6, abs=1e-6)


def log_ratio(over: list[Tensor], under: list[Tensor]) -> Any:
    return mean([math.log(a.norm() / b.norm()) for a, b in zip(over, under, strict=True)])


def cosine(one: list[Tensor], other: list[Tensor]) -> Any:
    return mean([(a * b).sum() / a.norm() / b.norm() for a, b in zip(one, other, strict=True)])


@pytest.mark.parametrize("name", MADE)
def test_what_moves_is_the_update_and_what_pulls_is_the_gradient(name: str) -> None:
    """Whatever the optimizer calls its update: rate times update is how weights move, and decay that is added belongs to the gradient."""
    walk = Walk(MADE[name])
    decay = COUPLED.get(name, 0.0)
    last = [grad + decay * param for grad, param in zip(walk.grads[-1], walk.before, strict=True)]
    assert walk["log_adam_update_norm_over_param_norm"] == log_ratio(walk.moves, walk.before)
    assert walk["cosine_similarity_grad_update"] == cosine(last, walk.moves)
    assert walk["cosine_similarity_grad_param"] == cosine(last, walk.before)
    assert walk["did_grad_clip"] == 0
    assert torch.isfinite(walk.row).all()


def averages(walk: Walk, beta: float) -> list[Tensor]:
    """The corrected mean of gradients."""
    weights = [beta ** (STEPS - 1 - step) for step in range(STEPS)]
    return [sum(w * g for w, g in zip(weights, column, strict=True)) / sum(weights) for column in zip(*walk.grads, strict=True)]


@pytest.mark.parametrize(
    ("name", "beta"), [("Adam", 0.9), ("Adam amsgrad", 0.9), ("Adam fused", 0.9), ("AdamW", 0.9), ("RAdam", 0.9), ("Adamax", 0.9)]
)
def test_momentum_of_the_adam_family_is_the_corrected_mean_of_gradients(name: str, beta: float) -> None:
    check_momentum(Walk(MADE[name]), beta)


def check_momentum(walk: Walk, beta: float) -> None:
    momentum, last = averages(walk, beta), walk.grads[-1]
    noise = [m - g for m, g in zip(momentum, last, strict=True)]
    assert walk["cosine_similarity_grad_momentum"] == cosine(last, momentum)
    assert walk["log_two_regimes_scale"] == log_ratio(momentum, last)
    assert walk["log_noise_scale"] == log_ratio(momentum, noise)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_buffer_of_sgd_is_a_weighted_mean_too(nesterov: bool) -> None:
    check_momentum(Walk(lambda p: OPTIM.SGD(p, lr=0.1, momentum=0.8, nesterov=nesterov)), 0.8)


def test_dampening_counts_the_first_gradient_whole() -> None:
    walk = Walk(MADE["SGD dampening"])
    weights = [0.8**4, *(0.5 * 0.8 ** (STEPS - 1 - step) for step in range(1, STEPS))]
    momentum = [sum(w * g for w, g in zip(weights, column, strict=True)) / sum(weights) for column in zip(*walk.grads, strict=True)]
    assert walk["log_two_regimes_scale"] == log_ratio(momentum, walk.grads[-1])


@pytest.mark.parametrize("name", ["RMSprop", "RMSprop all", "Adagrad", "Adadelta", "Rprop", "SGD", "LearnedOptimizer"])
def test_without_a_first_moment_the_gradient_stands_for_it(name: str) -> None:
    walk = Walk(MADE[name])
    found = [walk[one] for one in ("log_two_regimes_scale", "log_noise_scale", "cosine_similarity_grad_momentum")]
    assert found == pytest.approx([0.0, math.log(NOISE_LIMIT), 1.0])


def test_it_looks_like_adam_with_beta1_of_zero() -> None:
    """The masked case is one that training meets: the row of RMSprop is that of Adam without momentum, but for the bias correction."""
    adam = Walk(lambda p: OPTIM.Adam(p, lr=0.0, betas=(0.0, 0.9)))
    rmsprop = Walk(lambda p: OPTIM.RMSprop(p, lr=0.0, alpha=0.9))
    shift = math.log(math.sqrt(1 - 0.9**STEPS))
    scaled = {"mean_log_abs_adam_pre_lr_update": -shift, "log_lamb": shift}
    for name in STATISTICS:
        assert rmsprop[name] == pytest.approx(adam[name] + scaled.get(name, 0.0), abs=2e-6), name


def seconds(walk: Walk, beta: float) -> Tensor:
    weights = torch.tensor([beta ** (STEPS - 1 - step) for step in range(STEPS)], dtype=torch.float64)
    flat = torch.stack([torch.cat([grad.reshape(-1) for grad in row]) for row in walk.grads])
    return (weights @ flat.square() / weights.sum()).sqrt()


def test_epsilon_is_compared_with_the_root_of_the_second_moment() -> None:
    plain = seconds(Walk(MADE["Adam"]), 0.999)
    eps = float(plain.quantile(0.4))
    walk = Walk(lambda p: OPTIM.AdamW(p, lr=0.01, eps=eps))
    each = plain.split([math.prod(shape) for shape in SHAPES])
    assert walk["sqrt_v_hat_gt_epsilon"] == mean([(one > eps).double().mean() for one in each])
    assert 0.2 < walk["sqrt_v_hat_gt_epsilon"] < 0.9
    assert all(Walk(MADE[name])["sqrt_v_hat_gt_epsilon"] == 1.0 for name in ("SGD momentum", "Rprop", "LearnedOptimizer"))


def test_parts_of_unitless_adam_are_its_own() -> None:
    parts = []
    params = parameters(torch.float32)
    optimizer = UnitlessAdam(params, clip_ratio=0.5)
    for step in range(STEPS):
        for param, grad in zip(params, gradients(step, dtype=torch.float32), strict=True):
            param.grad = grad.clone()
        kept = before_step(optimizer)
        assert not kept.params, "nothing is copied for an optimizer that tells"
        inner = optimizer.on_parts
        optimizer.on_parts = lambda told, inner=inner: (parts.append(mean_statistics(*told)), inner(told))
        optimizer.step()
    row = step_statistics(optimizer, kept, STEPS)
    assert row is not None
    torch.testing.assert_close(row.float(), parts[-1])
    assert row[WHERE["did_grad_clip"]] == 1
    assert optimizer.on_parts is None


def test_adamw_is_measured_as_in_training() -> None:
    """A torch optimizer in a plain loop gives the statistics that environments compute in the step itself."""
    family = tasks.get("digits_mlp")
    task = family.build(family.sample("16-tanh-b32", 3, (8, 8))).to(dtype=torch.float64)
    values = start_values(lr=3e-3, weight_decay=0.2, epsilon=1e-4)
    learner, key = ControlledLearner("adamw", measure=True), seeds.key("a run")
    carry = learner.init({"values": values}, task, key)
    params = {name: nn.Parameter(value.clone()) for name, value in carry["params"].items()}
    optimizer = OPTIM.AdamW(params.values(), lr=3e-3, betas=(0.9, 0.99), eps=1e-4, weight_decay=0.2)
    rows = []
    for step in range(6):
        batch = task.batch(key, torch.tensor(step))
        carry, _ = learner.advance({"values": values}, task, carry, batch)
        optimizer.zero_grad()
        task.loss(params, batch).backward()  # type: ignore[arg-type]
        kept = before_step(optimizer)
        optimizer.step()
        row = step_statistics(optimizer, kept, step + 1)
        assert row is not None
        rows.append(row)
    for name, value in params.items():
        torch.testing.assert_close(value.detach(), carry["params"][name], rtol=1e-10, atol=1e-12)
    noise = WHERE["log_noise_scale"]  # of the first step: rounding over rounding, up to its limit in both
    found, wanted = torch.stack(rows).mean(0), carry["seen"]["mean"]
    assert found[noise] == pytest.approx(float(wanted[noise]), abs=0.2)
    found[noise] = wanted[noise]
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


# Multiplying the loss asks for another epsilon of those that have one, and for another rate of those whose step is a gradient.
SCALED: dict[str, Any] = {
    "AdamW": lambda p, s: OPTIM.AdamW(p, lr=0.01, eps=1e-3 * s),
    "NAdam": lambda p, s: OPTIM.NAdam(p, lr=0.01, eps=1e-3 * s),
    "Adamax": lambda p, s: OPTIM.Adamax(p, lr=0.01, eps=1e-3 * s),
    "RMSprop": lambda p, s: OPTIM.RMSprop(p, lr=0.01, eps=1e-3 * s, momentum=0.9),
    "Adagrad": lambda p, s: OPTIM.Adagrad(p, lr=0.01, eps=1e-3 * s),
    "SGD": lambda p, s: OPTIM.SGD(p, lr=0.1 / s, momentum=0.9, nesterov=True),
    "Rprop": lambda p, s: OPTIM.Rprop(p),
    "UnitlessAdam": lambda p, s: UnitlessAdam(p, lr=0.01),
}


@pytest.mark.parametrize("name", SCALED)
def test_no_row_tells_how_the_loss_is_scaled(name: str) -> None:
    plain = Walk(lambda p: SCALED[name](p, 1.0), dtype=torch.float32).row
    for exponent in (-20, -7, 9, 20):
        scale = 2.0**exponent
        found = Walk(lambda p, scale=scale: SCALED[name](p, scale), scale, torch.float32).row
        assert torch.equal(found, plain), exponent


def as_on_an_accelerator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("metaopt.optim.policy_scheduler_statistics._on_host", lambda _: False)


@pytest.mark.parametrize("name", MADE)
def test_an_accelerator_computes_the_same_in_other_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Walk(MADE[name]).row
    as_on_an_accelerator(monkeypatch)
    torch.testing.assert_close(Walk(MADE[name]).row, host, rtol=1e-6, atol=1e-6)


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_an_accelerator(monkeypatch)
    whole = Walk(MADE["AdamW"]).row
    monkeypatch.setattr("metaopt.optim.policy_scheduler_statistics._BATCH", 6)
    torch.testing.assert_close(Walk(MADE["AdamW"]).row, whole)


def test_groups_have_their_own_hyperparameters() -> None:
    params = parameters()
    optimizer = OPTIM.SGD([{"params": params[:1], "lr": 0.5}, {"params": params[1:], "lr": 0.001, "momentum": 0.5}], lr=0.1)
    for param, grad in zip(params, gradients(0), strict=True):
        param.grad = grad
    kept = before_step(optimizer)
    optimizer.step()
    row = step_statistics(optimizer, kept, 1)
    assert row is not None
    moves = [kept.params[id(param)] - param.detach() for param in params]
    assert float(row[WHERE["log_adam_update_norm_over_param_norm"]]) == log_ratio(moves, [kept.params[id(p)] for p in params])


def test_what_cannot_be_measured_is_left_out() -> None:
    params = parameters()
    optimizer = OPTIM.SGD([*params, nn.Parameter(torch.empty(0)), nn.Parameter(torch.zeros(2, dtype=torch.complex64))], lr=0.1)
    kept = before_step(optimizer)
    optimizer.step()
    assert step_statistics(optimizer, kept, 1) is None, "no gradients"
    params[0].grad = gradients(0)[0].to_sparse()
    params[1].grad = gradients(0)[1]
    optimizer.param_groups[0]["params"][-1].grad = torch.ones(2, dtype=torch.complex64)
    kept = before_step(optimizer)
    optimizer.step()
    row = step_statistics(optimizer, kept, 2)
    assert row is not None
    assert float(row[WHERE["cosine_similarity_grad_update"]]) == pytest.approx(1.0)


@pytest.mark.parametrize("accelerator", [False, True])
def test_halves_and_doubles_share_a_model(accelerator: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if accelerator:
        as_on_an_accelerator(monkeypatch)
    params = [nn.Parameter(numbers(i, 6, 4).to(dtype)) for i, dtype in enumerate((torch.bfloat16, torch.float32, torch.float64))]
    for optimizer in (OPTIM.AdamW(params), OPTIM.SGD(params, lr=0.1, momentum=0.9), OPTIM.Rprop(params)):
        for param in params:
            param.grad = torch.ones_like(param)
        kept = before_step(optimizer)
        optimizer.step()
        row = step_statistics(optimizer, kept, 1)
        assert row is not None
        assert torch.isfinite(row).all()


def test_nesterov_momentum_with_a_closure_is_refused() -> None:
    plain, nesterov = (OPTIM.SGD(parameters(), lr=0.1, momentum=0.9, nesterov=flag) for flag in (False, True))
    check_step(nesterov, (nesterov,), {})
    check_step(nesterov, (nesterov, None), {"closure": None})
    check_step(plain, (plain, lambda: 0), {})
    for args, kwargs in (((nesterov, lambda: 0), {}), ((nesterov,), {"closure": lambda: 0})):
        with pytest.raises(ConfigError, match="SGD with nesterov=True overwrites the gradients that its closure makes; call step"):
            check_step(nesterov, args, kwargs)
