"""Hand-made optimizers as update rules, equal to `torch.optim` step by step, differentiable in every hyperparameter.

Each direction leaves out the step size, which the caller applies; weight decay is the torch class's own kind (added to the gradient for
all but AdamW).

Source: the update equations in the documentation of `torch.optim`; Kingma, Ba, 2015, "Adam", algorithm 1; Loshchilov, Hutter, 2019,
"Decoupled weight decay"; Dozat, 2016, "Incorporating Nesterov momentum into Adam"; Tieleman, Hinton, 2012 (RMSProp).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metaopt.learners.update_rules.rule import Hyper, State, Theta

__all__ = ["CLASSIC", "ClassicRule", "one_minus_power"]

Hypers = dict[str, Any]  # each a float, or a 0-d tensor from theta


def one_minus_power(beta: Hyper, count: Tensor, like: Tensor) -> Tensor:
    """Return 1 - beta**count in the dtype of `like`, without cancellation when beta**count is close to 1."""
    log_beta = torch.log(beta) if isinstance(beta, Tensor) else math.log(beta) if beta > 0 else -math.inf
    return -torch.expm1(count.to(like.dtype) * log_beta)


def _sgd(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    return grad + h["weight_decay"] * param, {}


def _momentum(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    grad = grad + h["weight_decay"] * param
    buffer = h["momentum"] * state["momentum"] + grad
    return buffer, {"momentum": buffer}


def _nesterov(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    buffer, new_state = _momentum(h, param, grad, state, t)
    return grad + h["weight_decay"] * param + h["momentum"] * buffer, new_state


def _moments(h: Hypers, grad: Tensor, state: State) -> State:
    return {
        "m": h["beta1"] * state["m"] + (1 - h["beta1"]) * grad,
        "v": h["beta2"] * state["v"] + (1 - h["beta2"]) * grad * grad,
    }


def _root(v: Tensor) -> Tensor:
    """Return sqrt(v) with derivative 0 at v = 0, where a weight that never had a gradient would otherwise give 0 * inf."""
    positive = v > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, v, 1.0)), 0.0)


def _adam(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    new = _moments(h, grad + h["weight_decay"] * param, state)
    denominator = _root(new["v"]) / torch.sqrt(one_minus_power(h["beta2"], t + 1, param)) + h["eps"]
    return new["m"] / one_minus_power(h["beta1"], t + 1, param) / denominator, new


def _adamw(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    direction, new = _adam({**h, "weight_decay": 0.0}, param, grad, state, t)
    return direction + h["weight_decay"] * param, new


def _nadam(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    grad = grad + h["weight_decay"] * param
    new = _moments(h, grad, state)
    count = (t + 1).to(param.dtype)
    mu, mu_next = (h["beta1"] * (1 - 0.5 * 0.96 ** (c * h["momentum_decay"])) for c in (count, count + 1))
    product = state["mu_product"] * mu
    denominator = _root(new["v"]) / torch.sqrt(one_minus_power(h["beta2"], t + 1, param)) + h["eps"]
    numerator = grad * ((1 - mu) / (1 - product)) + new["m"] * (mu_next / (1 - product * mu_next))
    return numerator / denominator, {**new, "mu_product": product}


def _rmsprop(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    grad = grad + h["weight_decay"] * param
    v = h["alpha"] * state["v"] + (1 - h["alpha"]) * grad * grad
    buffer = h["momentum"] * state["momentum"] + grad / (_root(v) + h["eps"])
    return buffer, {"v": v, "momentum": buffer}


Update = Callable[[Hypers, Tensor, Tensor, State, Tensor], tuple[Tensor, State]]


@dataclass(frozen=True)
class ClassicRule:
    """A hand-made rule: theta is empty unless a caller sweeps or differentiates a hyperparameter through it.

    Attributes:
        name: registry name.
        formula: (hyperparameters, param, grad, state, t) -> (direction, state).
        tensors: names of accumulators of the parameter's shape, zero at the start.
        scalars: 0-d accumulators and their start.
        hyperparameters: defaults, `lr` among them.
    """

    name: str
    formula: Update
    tensors: tuple[str, ...]
    hyperparameters: dict[str, float] = field(hash=False)
    scalars: tuple[tuple[str, float], ...] = ()

    def init_theta(self, seed: int) -> Theta:
        """Return the empty dict."""
        return {}

    def init_state(self, param: Tensor) -> State:
        """Return the accumulators at their start."""
        start = {name: torch.zeros_like(param) for name in self.tensors}
        return {**start, **{name: param.new_full((), value) for name, value in self.scalars}}

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (direction, state) by the rule's formula."""
        return self.formula({**self.hyperparameters, **theta}, param, grad, state, t)


_ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

CLASSIC = {
    rule.name: rule
    for rule in (
        ClassicRule("sgd", _sgd, (), {"lr": 1e-2, "weight_decay": 0.0}),
        ClassicRule("momentum", _momentum, ("momentum",), {"lr": 1e-2, "momentum": 0.9, "weight_decay": 0.0}),
        ClassicRule("nesterov", _nesterov, ("momentum",), {"lr": 1e-2, "momentum": 0.9, "weight_decay": 0.0}),
        ClassicRule("adam", _adam, ("m", "v"), {**_ADAM, "weight_decay": 0.0}),
        ClassicRule("adamw", _adamw, ("m", "v"), {**_ADAM, "weight_decay": 1e-2}),
        ClassicRule(
            "nadam", _nadam, ("m", "v"), {**_ADAM, "lr": 2e-3, "weight_decay": 0.0, "momentum_decay": 4e-3}, (("mu_product", 1.0),)
        ),
        ClassicRule("rmsprop", _rmsprop, ("v", "momentum"), {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0}),
    )
}
