"""Drop-in optimizers whose hyperparameters learn themselves: SGD, Adam, AdamW, RMSProp and Lion under a tower.

With a tower that learns nothing (`hyper={"name": "sgd", "lr": 0.0}`) each takes the steps of its class in `torch.optim`, to the last bit
(Lion, which torch does not have, those of its paper).

Arguments that all five share:

    hyper: the optimizers of the tower, lowest first: a name ("sgd", "momentum", "adam", "rmsprop", "sign"), a mapping with `name`, `lr`
        and that part's other options, or a list of them.
    learn: which hyperparameters of the optimizer are learned; betas are "beta1" and "beta2".
    link: coordinates in which they are learned, a name ("log", "logit", "square", "identity") or one for each; `log` means `logit` for
        momentum, betas and alpha.
    bounds: (low, high) of the values, or such a pair for each; None for wide ones.
    mode: one tower for the whole model ("global"), one a group ("per_group"), or one a tensor ("per_tensor").
    update: how a value moves: "additive", "multiplicative" or "cosine" (`metaopt.learners.hypergradients.towers`).
    maximize: climb instead of descend.

All raise `ConfigError` for what is out of range, unknown, or cannot be learned.

Source: Baydin et al., 2018, "Online learning rate adaptation with hypergradient descent" (1703.04782); Chandra et al., 2022, "Gradient
descent: the ultimate optimizer" (1909.13371). Differs: all dot products of a tower are summed before it moves, once a step.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from metaopt.optim.hypergradient_base import Bounds, Hyper, HypergradientOptimizer, Params

__all__ = ["HypergradientAdam", "HypergradientAdamW", "HypergradientLion", "HypergradientRMSProp", "HypergradientSGD"]

Link = str | Mapping[str, str]


class HypergradientSGD(HypergradientOptimizer):
    """`torch.optim.SGD` that learns its rate, momentum or weight decay.

    Args:
        params: parameters, dict groups or `named_parameters()`; a group may set each of the others up to `weight_decay`, and `maximize`.
        lr: where the rate starts, (0, inf) if it is learned.
        momentum: heavy-ball momentum, [0, 1); (0, 1) if it is learned under `logit`.
        nesterov: Nesterov's momentum.
        weight_decay: added to the gradient, [0, inf).
        hyper, learn, link, bounds, mode, update, maximize: see the module.

    Raises:
        ConfigError: see the module.
    """

    _name: ClassVar[str] = "sgd"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.1,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        hyper: Hyper = "sgd",
        learn: str | Sequence[str] = ("lr",),
        link: Link = "log",
        bounds: Bounds = None,
        mode: str = "global",
        update: str = "additive",
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, hyper, learn, link, bounds, mode, update)


class HypergradientAdam(HypergradientOptimizer):
    """`torch.optim.Adam` that learns its rate, betas, eps or weight decay.

    Args:
        params: parameters, dict groups or `named_parameters()`; a group may set each of the others up to `weight_decay`, and `maximize`.
        lr: where the rate starts, (0, inf) if it is learned.
        betas: decays of the means of gradients and of their squares, [0, 1) each.
        eps: added to the root of the mean square, [0, inf).
        weight_decay: added to the gradient, [0, inf).
        hyper, learn, link, bounds, mode, update, maximize: see the module.

    Raises:
        ConfigError: see the module.
    """

    _name: ClassVar[str] = "adam"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        hyper: Hyper = "sgd",
        learn: str | Sequence[str] = ("lr",),
        link: Link = "log",
        bounds: Bounds = None,
        mode: str = "global",
        update: str = "additive",
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, hyper, learn, link, bounds, mode, update)


class HypergradientAdamW(HypergradientAdam):
    """`torch.optim.AdamW` that learns its rate, betas, eps or weight decay.

    Args:
        params, lr, betas, eps: as in `HypergradientAdam`.
        weight_decay: decoupled, in units of the rate, [0, inf).
        hyper, learn, link, bounds, mode, update, maximize: see the module.

    Raises:
        ConfigError: see the module.
    """

    _name: ClassVar[str] = "adamw"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        hyper: Hyper = "sgd",
        learn: str | Sequence[str] = ("lr",),
        link: Link = "log",
        bounds: Bounds = None,
        mode: str = "global",
        update: str = "additive",
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, hyper, learn, link, bounds, mode, update, maximize=maximize)


class HypergradientRMSProp(HypergradientOptimizer):
    """`torch.optim.RMSprop`, without centring, that learns its rate, alpha, eps, weight decay or momentum.

    Args:
        params: parameters, dict groups or `named_parameters()`; a group may set each of the others up to `momentum`, and `maximize`.
        lr: where the rate starts, (0, inf) if it is learned.
        alpha: decay of the mean of squares, [0, 1).
        eps: added to its root, [0, inf).
        weight_decay: added to the gradient, [0, inf).
        momentum: of the steps, [0, 1); (0, 1) if it is learned under `logit`.
        hyper, learn, link, bounds, mode, update, maximize: see the module.

    Raises:
        ConfigError: see the module.
    """

    _name: ClassVar[str] = "rmsprop"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        hyper: Hyper = "sgd",
        learn: str | Sequence[str] = ("lr",),
        link: Link = "log",
        bounds: Bounds = None,
        mode: str = "global",
        update: str = "additive",
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "maximize": maximize}
        super().__init__(params, defaults, hyper, learn, link, bounds, mode, update)


class HypergradientLion(HypergradientOptimizer):
    """Lion that learns its rate or weight decay; its betas act through a sign, whose derivative is 0.

    Args:
        params: parameters, dict groups or `named_parameters()`; a group may set each of the others up to `weight_decay`, and `maximize`.
        lr: where the rate starts, (0, inf) if it is learned.
        betas: weight of the mean in the step, and its decay, [0, 1) each.
        weight_decay: decoupled, in units of the rate, [0, inf).
        hyper, learn, link, bounds, mode, update, maximize: see the module.

    Raises:
        ConfigError: see the module.

    Source: Chen et al., 2023, "Symbolic discovery of optimization algorithms" (2302.06675), algorithm 2.
    """

    _name: ClassVar[str] = "lion"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        hyper: Hyper = "sgd",
        learn: str | Sequence[str] = ("lr",),
        link: Link = "log",
        bounds: Bounds = None,
        mode: str = "global",
        update: str = "additive",
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, hyper, learn, link, bounds, mode, update)
