"""Small inner runs in float64, and what central differences say about them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metaopt.estimators.hypergradients import GradientStep, gradient_step
from metaopt.learners.update_rules import CLASSIC

STEP = 1e-6  # of the central differences

# Values away from every edge (beta2 close to 1 has third derivatives of 1e9, eps next to 0 a pole), so that differences have their digits.
HYPERPARAMETERS = {
    "sgd": {"lr": 0.1, "weight_decay": 0.02},
    "momentum": {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.02},
    "nesterov": {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.02},
    "adam": {"lr": 0.05, "beta1": 0.8, "beta2": 0.9, "eps": 1e-2, "weight_decay": 0.02},
    "adamw": {"lr": 0.05, "beta1": 0.8, "beta2": 0.9, "eps": 1e-2, "weight_decay": 0.02},
    "nadam": {"lr": 0.05, "beta1": 0.8, "beta2": 0.9, "eps": 1e-2, "momentum_decay": 0.1, "weight_decay": 0.02},
    "rmsprop": {"lr": 0.05, "alpha": 0.9, "eps": 1e-2, "momentum": 0.7, "weight_decay": 0.02},
}


def number(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(value, dtype=dtype)


def hyperparameters(rule: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: number(value, dtype) for name, value in HYPERPARAMETERS[rule].items()}


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def mlp_loss(params: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """Squared error of a smooth network 3-4-2."""
    x, y = batch
    return (torch.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] - y).pow(2).mean()


def mlp(rule: str, steps: int, dtype: torch.dtype = torch.float64) -> tuple[GradientStep, Any, list[Any], Callable[[Any], Tensor]]:
    """Return (inner step, state0, batches, outer loss) of a tanh network."""
    params = {"w1": draw(3, 4, seed=1, dtype=dtype), "b1": draw(4, seed=2, dtype=dtype), "w2": draw(4, 2, seed=3, dtype=dtype)}
    batches = [(draw(8, 3, seed=10 + t, dtype=dtype), draw(8, 2, seed=100 + t, dtype=dtype)) for t in range(steps + 1)]
    inner = gradient_step(mlp_loss, rule)
    assert inner.rule == CLASSIC[rule]()
    return inner, inner.init(params), batches[:steps], lambda state: mlp_loss(state["params"], batches[-1])


def run(inner: Any, state: Any, batches: Any, outer: Any, values: dict[str, Tensor], first: int = 0, reference: Any = None) -> Tensor:
    """Return the outer loss; before step `first` the hyperparameters are those of `reference`."""
    for t in range(len(batches)):
        state = inner(state, batches[t], reference if t < first else values)
    return outer(state)


def differences(inner: Any, state: Any, batches: Any, outer: Any, values: dict[str, Tensor], first: int = 0) -> dict[str, Tensor]:
    """Return central differences of the outer loss in each entry of the hyperparameters, which differ from step `first` on only."""
    found = {}
    for name, value in values.items():
        slopes = []
        for i in range(value.numel()):
            shift = torch.zeros_like(value)
            shift.view(-1)[i] = STEP
            up, down = (run(inner, state, batches, outer, {**values, name: value + s * shift}, first, values) for s in (1, -1))
            slopes.append((up - down) / (2 * STEP))
        found[name] = torch.stack(slopes).reshape(value.shape)
    return found


def curved_step(state: dict[str, Tensor], batch: Tensor, hyper: dict[str, Tensor]) -> dict[str, Tensor]:
    """Heavy ball on a smooth loss that is no quadratic; the hyperparameters are of shapes [], [3] and [2, 3]."""

    def loss(x: Tensor) -> Tensor:
        return (hyper["weights"].exp() * (x - batch).pow(2)).sum() + 0.1 * torch.cos(hyper["matrix"] @ x).sum()

    velocity = 0.7 * state["velocity"] + torch.func.grad(loss)(state["x"])
    return {"x": state["x"] - hyper["rate"] * velocity, "velocity": velocity, "count": state["count"] + 1}


def curved(steps: int) -> tuple[Any, Any, Any, Any, dict[str, Tensor]]:
    """Return (inner step, state0, batches, outer loss, hyperparameters); the batches are a tensor [T, 3]."""
    state = {"x": draw(3, seed=5), "velocity": torch.zeros(3, dtype=torch.float64), "count": torch.zeros((), dtype=torch.int64)}
    hyper = {"rate": number(0.05), "weights": 0.3 * draw(3, seed=6), "matrix": draw(2, 3, seed=7)}
    return curved_step, state, 0.2 * draw(steps, 3, seed=8), lambda end: (end["x"] - 1).pow(2).sum() + end["velocity"].sin().sum(), hyper
