"""The drop-in towers and the learners: closed forms on one side, forward-mode differentiation on the other, one trajectory."""

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from metaopt import optim
from metaopt.learners.hypergradients import PRESETS, HypergradientLearner
from metaopt.learners.hypergradients.learner import HypergradientMomentum

SHAPES = ((3, 4), (4,))
STEPS = 50


@dataclass(frozen=True)
class HypergradientNesterov(HypergradientMomentum):
    """The learner that has no preset."""

    name: ClassVar[str] = "hypergradient_nesterov"
    base: ClassVar[str] = "nesterov"


# Setting -> the learner's and the optimizer's class, and what they begin with.
BASES: dict[str, tuple[type[HypergradientLearner], Any, dict[str, float], dict[str, Any]]] = {
    "sgd": (PRESETS["hypergradient_sgd"], optim.HypergradientSGD, {"lr": 0.05, "weight_decay": 0.02}, {}),
    "momentum": (PRESETS["hypergradient_momentum"], optim.HypergradientSGD, {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.02}, {}),
    "nesterov": (HypergradientNesterov, optim.HypergradientSGD, {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.02}, {"nesterov": True}),
    "adam": (PRESETS["hypergradient_adam"], optim.HypergradientAdam, {"lr": 0.01, "eps": 1e-2, "weight_decay": 0.02}, {}),
    "adamw": (PRESETS["hypergradient_adamw"], optim.HypergradientAdamW, {"lr": 0.01, "eps": 1e-2, "weight_decay": 0.02}, {}),
    "rmsprop": (PRESETS["hypergradient_rmsprop"], optim.HypergradientRMSProp, {"lr": 0.01, "eps": 1e-2, "weight_decay": 0.02}, {}),
    "rmsprop momentum": (
        PRESETS["hypergradient_rmsprop"],
        optim.HypergradientRMSProp,
        {"lr": 0.01, "eps": 1e-2, "weight_decay": 0.02, "momentum": 0.8},
        {},
    ),
    "lion": (PRESETS["hypergradient_lion"], optim.HypergradientLion, {"lr": 0.01, "weight_decay": 0.02}, {}),
}
ALL = {
    "sgd": ("lr", "weight_decay"),
    "momentum": ("lr", "momentum", "weight_decay"),
    "nesterov": ("lr", "momentum", "weight_decay"),
    "adam": ("lr", "beta1", "beta2", "eps", "weight_decay"),
    "adamw": ("lr", "beta1", "beta2", "eps", "weight_decay"),
    "rmsprop": ("lr", "alpha", "eps", "weight_decay"),
    "rmsprop momentum": ("lr", "alpha", "eps", "weight_decay", "momentum"),
    "lion": ("lr", "weight_decay"),
}
LINKS, UPDATES, MODES = ("log", "square", "identity"), ("additive", "multiplicative", "cosine"), ("global", "per_tensor")
HYPERS: dict[str, tuple[str, ...]] = {"log": ("sgd",), "square": ("momentum", "adam"), "identity": ("sgd", "sgd")}


def compare(base: str, learn: tuple[str, ...], link: str, update: str, mode: str, dtype: torch.dtype, steps: int = STEPS) -> None:
    # The learner holds a learned beta in the parameter's dtype, the drop-in as a double: in float32 1 - beta differs in the fifth digit.
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6 if learn == ("lr",) else 1e-3
    kind, made, begins, more = BASES[base]
    values = [torch.randn(shape, generator=torch.Generator().manual_seed(i)).to(dtype) for i, shape in enumerate(SHAPES)]
    hyper, hyper_lr = HYPERS[link], 1e-9 if link == "identity" else 1e-3  # raw towers explode by themselves
    learner = kind(**begins, hyper=hyper, hyper_lr=hyper_lr, learn=learn, link=link, moves=update, mode=mode)  # type: ignore[arg-type]
    h = learner.hypers({})
    params: dict[str, Tensor] = {str(i): value.clone() for i, value in enumerate(values)}
    state = learner.init_state(h, params)
    own = [nn.Parameter(value.clone()) for value in values]
    parts = [{"name": name, "lr": hyper_lr} for name in hyper]
    optimizer = made(own, **begins, **more, hyper=parts, learn=learn, link=link, update=update, mode=mode)
    for t in range(steps):
        source = torch.Generator().manual_seed(100 + t)
        grads = {name: torch.randn(param.shape, generator=source).to(dtype) + 0.5 for name, param in params.items()}
        scales = dict.fromkeys(params, 1.0)
        params, state = learner.update(h, params, grads, state, torch.tensor(t), h["lr"], scales)
        for param, grad in zip(own, grads.values(), strict=True):
            param.grad = grad.clone()
        optimizer.step()
    for param, expected in zip(own, params.values(), strict=True):
        torch.testing.assert_close(param.detach(), expected, rtol=tolerance, atol=tolerance)
    for name, expected in learner.tower.values(state["tower"]).items():
        found = torch.tensor([row[name] for row in optimizer.hyperparameters()], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=10 * tolerance, atol=0.0, msg=lambda m, n=name: f"{n}: {m}")
        assert not torch.equal(found, torch.full_like(found, h[name])), f"{name} has learned nothing"
    rates = torch.tensor(optimizer.tower_rates(), dtype=torch.float64).unbind(-1)
    for found, expected in zip(rates, learner.tower.rates(state["tower"]), strict=True):
        torch.testing.assert_close(found, expected, rtol=10 * tolerance, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("base", BASES)
def test_every_base_with_its_rate_alone(base: str, dtype: torch.dtype) -> None:
    compare(base, ("lr",), "log", "additive", "global", dtype)


@pytest.mark.parametrize(("place", "base"), list(enumerate(BASES)))
def test_every_base_with_all_that_it_can_learn(place: int, base: str) -> None:
    compare(base, ALL[base], "log", UPDATES[place % 3], MODES[place % 2], torch.float64, 12)


@pytest.mark.parametrize(("link", "update", "mode"), list(itertools.product(LINKS, UPDATES, MODES)))
def test_every_link_update_and_mode(link: str, update: str, mode: str) -> None:
    compare("momentum", ("lr", "momentum"), link, update, mode, torch.float64, 8)


@pytest.mark.slow
@pytest.mark.parametrize(("base", "link", "update", "mode"), list(itertools.product(BASES, LINKS, UPDATES, MODES)))
def test_all_together(base: str, link: str, update: str, mode: str) -> None:
    # `square` has no limit on a step: with coordinates next to the ends of their range the run explodes, and rounding with it.
    wild = {"beta1", "beta2", "eps"} if (link, update) == ("square", "additive") else set()
    compare(base, tuple(name for name in ALL[base] if name not in wild), link, update, mode, torch.float64, 15)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("base", "learn"), [(base, (name,)) for base, names in ALL.items() for name in names])
def test_each_alone(base: str, learn: tuple[str, ...], dtype: torch.dtype) -> None:
    compare(base, learn, "log", "additive", "global", dtype)
