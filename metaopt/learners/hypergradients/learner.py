"""A hypergradient tower over a classic optimizer as a learner: pure, vectorised over particles, with nothing to meta-train.

`metaopt.optim` has the same towers as drop-in optimizers in closed form; tests hold the two together. Here the derivative of a step in a
hyperparameter comes from forward-mode differentiation of the rule itself.

Legend: S scopes of a tower, J learned hyperparameters.
"""

import functools
from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from metaopt.learners.forward_mode import jvp
from metaopt.learners.hypergradients.options import BASES, build_tower
from metaopt.learners.hypergradients.towers import Tower, Update, signal
from metaopt.learners.update_rules.classic import ClassicRule, Decay, Size
from metaopt.learners.update_rules.rule import Hyper, State
from metaopt.learners.whole_model import Hypers, WholeModelLearner, WholeState
from metaopt.tasks.task import Params

__all__ = ["PRESETS", "HypergradientLearner"]

# Adam's first step is g / (|g| + eps) whatever its betas are; rounding gives it a derivative, of which a cosine makes a full step.
_AFTER_FIRST = {"adam": ("beta1", "beta2"), "adamw": ("beta1", "beta2")}


@dataclass(frozen=True)
class HypergradientLearner(WholeModelLearner, ABC):
    """A classic optimizer whose hyperparameters are learned while it runs.

    Its own hyperparameters are the float fields of a subclass, where it starts. The schedule multiplies the learned rate. By default the
    rate moves by cosines, which a loss in other units leaves as they are; on tasks of `meta_valid` that was the best of the three.

    Attributes:
        base: name of the optimizer in `options.BASES`.
        hyper: parts of the tower by name, lowest first.
        hyper_lr: the rate that each part begins with.
        learn: which hyperparameters are learned.
        link, moves: as `link` and `update` of `options.build_tower`.
        mode: one tower for the whole model, or one a tensor.
    """

    base: ClassVar[str]
    hyper: tuple[str, ...] = ("sgd",)
    hyper_lr: Size = 0.05
    learn: tuple[str, ...] = ("lr",)
    link: str = "log"
    moves: Update = "cosine"
    mode: Literal["global", "per_tensor"] = "global"

    @property
    def optimizer(self) -> ClassicRule:
        """The base optimizer, with the hyperparameters where they start."""
        return _optimizer(self)

    @property
    def tower(self) -> Tower:
        """The tower.

        Raises:
            ConfigError: see `options.build_tower`.
        """
        return _tower(self)

    def init_state(self, h: Hypers, params: Params) -> WholeState:
        """Return the optimizer's accumulators, the tower, and how the last step changed with each learned hyperparameter (not at all)."""
        scopes = len(params) if self.mode == "per_tensor" else 1
        like = next(iter(params.values())).new_zeros(scopes)
        begins = {name: like + h[name] for name in self.learn}
        return {
            "rule": {name: self.optimizer.init_state(param) for name, param in params.items()},
            "tower": self.tower.start(begins, [like + h["hyper_lr"]] * len(self.hyper)),
            "change": {name: torch.stack([torch.zeros_like(param)] * len(self.learn)) for name, param in params.items()},
        }

    def update(
        self, h: Hypers, params: Params, grads: Params, state: WholeState, t: Tensor, lr: Hyper, scales: dict[str, float]
    ) -> tuple[Params, WholeState]:
        """Return (params, state): the tower learns from the last step, then the optimizer takes one with what it learned."""
        seen = self.tower.observe(state["tower"], self._signals(grads, state["change"]))
        tower = {name: torch.where(t > 0, seen[name], value) for name, value in state["tower"].items()}
        values_SJ = torch.stack(list(self.tower.values(tower).values()), -1)
        factor = lr / h["lr"]
        acts_J = [(t > 0) if name in _AFTER_FIRST.get(self.base, ()) else 1.0 for name in self.learn]
        new_params, rules, changes = {}, {}, {}
        for i, (name, param) in enumerate(params.items()):
            at_J = values_SJ[i if self.mode == "per_tensor" else 0].to(param.dtype)
            own = (param, grads[name], state["rule"][name], t)
            step = functools.partial(self._step, h, own, factor * scales[name])
            moved, rules[name] = step(at_J)
            new_params[name] = param - moved
            units_JJ = torch.eye(len(at_J)).to(at_J)
            changes[name] = -torch.stack(
                [jvp(step, (at_J,), (unit,), has_aux=True)[1] * acts for unit, acts in zip(units_JJ, acts_J, strict=True)]
            )
        return new_params, {"rule": rules, "tower": tower, "change": changes}

    def _step(self, h: Hypers, own: tuple[Tensor, Tensor, State, Tensor], factor: Hyper, at_J: Tensor) -> tuple[Tensor, State]:
        """Return (how far a parameter moves, its new accumulators) with the learned hyperparameters at given values."""
        hypers: dict[str, Any] = {**h, **dict(zip(self.learn, at_J, strict=True))}
        direction, new = self.optimizer.update(hypers, *own)
        return factor * hypers["lr"] * direction, new

    def _signals(self, grads: Params, changes: Params) -> Tensor:
        """Return what the tower gets [S, J]: summed over tensors in global mode."""
        dots, squares, sizes = [], [], []
        for name, grad in grads.items():
            change = changes[name].flatten(1)
            dots.append(torch.mv(change, grad.flatten()).double())
            sizes.append(change.double().square().sum(1))
            squares.append(grad.double().square().sum())
        dot, size, square = torch.stack(dots), torch.stack(sizes), torch.stack(squares)
        if self.mode == "global":
            dot, size, square = dot.sum(0, keepdim=True), size.sum(0, keepdim=True), square.sum(0, keepdim=True)
        return signal(self.moves, dot, square, size)


# Kept outside of learners: what is stored on one would change how it pickles, hence what runs of it are filed under.
@functools.cache
def _optimizer(learner: HypergradientLearner) -> ClassicRule:
    return BASES[learner.base](**{name: value for name, value in learner.hyperparameters.items() if name != "hyper_lr"})


@functools.cache
def _tower(learner: HypergradientLearner) -> Tower:
    parts = [{"name": name, "lr": learner.hyper_lr} for name in learner.hyper]
    return build_tower(learner.base, learner.optimizer.hyperparameters, parts, learner.learn, learner.link, None, learner.moves)


@dataclass(frozen=True)
class HypergradientSGD(HypergradientLearner):
    """Gradient descent that learns its rate."""

    name: ClassVar[str] = "hypergradient_sgd"
    base: ClassVar[str] = "sgd"
    lr: Size = 0.1
    weight_decay: Size = 0.0


@dataclass(frozen=True)
class HypergradientMomentum(HypergradientSGD):
    """Gradient descent with momentum that learns its rate."""

    name: ClassVar[str] = "hypergradient_momentum"
    base: ClassVar[str] = "momentum"
    lr: Size = 0.01
    momentum: Decay = 0.9


@dataclass(frozen=True)
class HypergradientAdam(HypergradientLearner):
    """Adam that learns its rate."""

    name: ClassVar[str] = "hypergradient_adam"
    base: ClassVar[str] = "adam"
    lr: Size = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Size = 1e-8
    weight_decay: Size = 0.0


@dataclass(frozen=True)
class HypergradientAdamW(HypergradientAdam):
    """AdamW that learns its rate."""

    name: ClassVar[str] = "hypergradient_adamw"
    base: ClassVar[str] = "adamw"
    weight_decay: Size = 1e-2


@dataclass(frozen=True)
class HypergradientRMSProp(HypergradientLearner):
    """RMSProp that learns its rate."""

    name: ClassVar[str] = "hypergradient_rmsprop"
    base: ClassVar[str] = "rmsprop"
    lr: Size = 1e-3
    alpha: Decay = 0.99
    eps: Size = 1e-8
    momentum: Decay = 0.0
    weight_decay: Size = 0.0


@dataclass(frozen=True)
class HypergradientLion(HypergradientLearner):
    """Lion that learns its rate."""

    name: ClassVar[str] = "hypergradient_lion"
    base: ClassVar[str] = "lion"
    lr: Size = 1e-4
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    weight_decay: Size = 0.0


PRESETS: dict[str, type[HypergradientLearner]] = {
    preset.name: preset
    for preset in (HypergradientSGD, HypergradientMomentum, HypergradientAdam, HypergradientAdamW, HypergradientRMSProp, HypergradientLion)
}
