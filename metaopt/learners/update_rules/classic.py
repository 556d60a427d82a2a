"""Hand-made optimizers as update rules, equal to `torch.optim` step by step, differentiable in every hyperparameter.

Each direction leaves out the step size, which the caller applies; weight decay is the torch class's own kind (added to the gradient for
all but AdamW).

Source: the update equations in the documentation of `torch.optim`; Kingma, Ba, 2015, "Adam", algorithm 1; Loshchilov, Hutter, 2019,
"Decoupled weight decay"; Dozat, 2016, "Incorporating Nesterov momentum into Adam"; Tieleman, Hinton, 2012 (RMSProp).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from metaopt.learners.update_rules.rule import Hyper, State, Theta

__all__ = ["CLASSIC", "Adam", "AdamW", "ClassicRule", "Decay", "Size", "one_minus_power", "root"]

Hypers = dict[str, Any]  # each a float, or a 0-d tensor from theta
Size = Annotated[float, Ge(0)]
Decay = Annotated[float, Ge(0), Lt(1)]


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


def root(v: Tensor) -> Tensor:
    """Return sqrt(v) with derivative 0 at v = 0, where a weight that never had a gradient would otherwise give 0 * inf."""
    positive = v > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, v, 1.0)), 0.0)


def _adam(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    new = _moments(h, grad + h["weight_decay"] * param, state)
    denominator = root(new["v"]) / torch.sqrt(one_minus_power(h["beta2"], t + 1, param)) + h["eps"]
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
    denominator = root(new["v"]) / torch.sqrt(one_minus_power(h["beta2"], t + 1, param)) + h["eps"]
    numerator = grad * ((1 - mu) / (1 - product)) + new["m"] * (mu_next / (1 - product * mu_next))
    return numerator / denominator, {**new, "mu_product": product}


def _rmsprop(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
    grad = grad + h["weight_decay"] * param
    v = h["alpha"] * state["v"] + (1 - h["alpha"]) * grad * grad
    buffer = h["momentum"] * state["momentum"] + grad / (root(v) + h["eps"])
    return buffer, {"v": v, "momentum": buffer}


@dataclass(frozen=True)
class ClassicRule(ABC):
    """A hand-made rule: theta is empty unless a caller sweeps or differentiates a hyperparameter through it.

    The fields of a subclass are its hyperparameters, hence the options of its configuration.

    Attributes:
        name: registry name.
        tensors: names of accumulators of the parameter's shape, zero at the start.
        scalars: 0-d accumulators and their start.
        hyperparameters: the values of the fields by name, `lr` among them.
    """

    name: ClassVar[str]
    tensors: ClassVar[tuple[str, ...]] = ()
    scalars: ClassVar[tuple[tuple[str, float], ...]] = ()
    hyperparameters: dict[str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Collect the fields once: a step reads them as a dict."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        object.__setattr__(self, "hyperparameters", values)

    def init_theta(self, seed: int) -> Theta:
        """Return the empty dict."""
        return {}

    def init_state(self, param: Tensor) -> State:
        """Return the accumulators at their start."""
        start = {name: torch.zeros_like(param) for name in self.tensors}
        return {**start, **{name: param.new_full((), value) for name, value in self.scalars}}

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (direction, state) by the rule's formula."""
        return self._formula({**self.hyperparameters, **theta}, param, grad, state, t)

    @staticmethod
    @abstractmethod
    def _formula(h: Hypers, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        """Return (direction, state)."""


@dataclass(frozen=True)
class SGD(ClassicRule):
    """Gradient descent."""

    name: ClassVar[str] = "sgd"
    lr: Size = 1e-2
    weight_decay: Size = 0.0
    _formula = staticmethod(_sgd)


@dataclass(frozen=True)
class Momentum(ClassicRule):
    """Gradient descent with heavy-ball momentum."""

    name: ClassVar[str] = "momentum"
    tensors: ClassVar[tuple[str, ...]] = ("momentum",)
    lr: Size = 1e-2
    momentum: Decay = 0.9
    weight_decay: Size = 0.0
    _formula = staticmethod(_momentum)


@dataclass(frozen=True)
class Nesterov(Momentum):
    """Gradient descent with Nesterov's momentum."""

    name: ClassVar[str] = "nesterov"
    _formula = staticmethod(_nesterov)


@dataclass(frozen=True)
class Adam(ClassicRule):
    """Adam; its weight decay is added to the gradient."""

    name: ClassVar[str] = "adam"
    tensors: ClassVar[tuple[str, ...]] = ("m", "v")
    lr: Size = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Size = 1e-8
    weight_decay: Size = 0.0
    _formula = staticmethod(_adam)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay."""

    name: ClassVar[str] = "adamw"
    weight_decay: Size = 1e-2
    _formula = staticmethod(_adamw)


@dataclass(frozen=True)
class NAdam(Adam):
    """Adam with Nesterov's momentum."""

    name: ClassVar[str] = "nadam"
    scalars: ClassVar[tuple[tuple[str, float], ...]] = (("mu_product", 1.0),)
    lr: Size = 2e-3
    momentum_decay: Size = 4e-3
    _formula = staticmethod(_nadam)


@dataclass(frozen=True)
class RMSProp(ClassicRule):
    """RMSProp without centring."""

    name: ClassVar[str] = "rmsprop"
    tensors: ClassVar[tuple[str, ...]] = ("v", "momentum")
    lr: Size = 1e-2
    alpha: Decay = 0.99
    eps: Size = 1e-8
    momentum: Decay = 0.0
    weight_decay: Size = 0.0
    _formula = staticmethod(_rmsprop)


CLASSIC: dict[str, type[ClassicRule]] = {rule.name: rule for rule in (SGD, Momentum, Nesterov, Adam, AdamW, NAdam, RMSProp)}
