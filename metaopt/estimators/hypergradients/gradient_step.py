"""An inner step made of a loss and a hand-made update rule, with the rule's hyperparameters by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from metaopt.errors import ConfigError
from metaopt.estimators.hypergradients.problem import Hyperparameters
from metaopt.learners.update_rules import CLASSIC, ClassicRule, hyper
from metaopt.names import nearest
from metaopt.tasks.task import Params

__all__ = ["GradientStep", "gradient_step"]

Loss = Callable[[Params, Any], Tensor]


@dataclass(frozen=True)
class GradientStep:
    """An inner step (state, batch, hyperparameters) -> state that knows its loss and its rule.

    A state is `{"params", "state", "t"}`: parameters by name, the rule's accumulators for each of them, and the number of updates made.

    Attributes:
        loss: pure function (params, batch) -> 0-d tensor, by operations that `torch.func.grad` knows.
        rule: the update rule; hyperparameters that a call does not name have the rule's values.
    """

    loss: Loss
    rule: ClassicRule

    def init(self, params: Params) -> dict[str, Any]:
        """Return the state before the first update, on the parameters' device; copies nothing, differentiates nothing."""
        device = next(iter(params.values())).device
        accumulators = {name: self.rule.init_state(param.detach()) for name, param in params.items()}
        start = {name: param.detach() for name, param in params.items()}
        return {"params": start, "state": accumulators, "t": torch.zeros((), dtype=torch.int64, device=device)}

    def __call__(self, state: dict[str, Any], batch: Any, hyperparameters: Hyperparameters) -> dict[str, Any]:
        """Return the state after one update.

        Raises:
            ConfigError: a hyperparameter that the rule does not have, or one that is not 0-d.
        """
        self.check(hyperparameters)
        params, t = state["params"], state["t"]
        grads = grad(self.loss)(params, batch)
        lr = hyper(self.rule, hyperparameters, "lr")
        new_params, new_state = {}, {}
        for name, param in params.items():
            # Not `apply_rule`: at a step size of exactly 0, where schedules begin, it returns the parameter itself and no derivative.
            direction, new_state[name] = self.rule.update(hyperparameters, param, grads[name], state["state"][name], t)
            new_params[name] = param - lr * direction
        return {"params": new_params, "state": new_state, "t": t + 1}

    def check(self, hyperparameters: Hyperparameters) -> None:
        """Raise unless the rule has these hyperparameters and each is one number.

        Raises:
            ConfigError: the first that is not so.
        """
        for name, value in hyperparameters.items():
            if name not in self.rule.hyperparameters:
                raise ConfigError(f"rule {self.rule.name} has no hyperparameter {name!r}{nearest(name, self.rule.hyperparameters)}")
            if value.ndim:
                raise ConfigError(
                    f"hyperparameters[{name!r}] of rule {self.rule.name} must be 0-d, got shape {list(value.shape)};"
                    " a schedule [segments] needs method forward_shared"
                )


def gradient_step(loss: Loss, rule: ClassicRule | str) -> GradientStep:
    """Return the inner step of an update rule on a loss.

    Args:
        loss: pure function (params, batch) -> 0-d tensor; params are tensors by name.
        rule: a hand-made rule (`metaopt.learners.update_rules.CLASSIC`), or its name.

    Raises:
        ConfigError: no such rule, or a learned one.
    """
    if isinstance(rule, str):
        if rule not in CLASSIC:
            raise ConfigError(f"rule {rule!r} of gradient_step is unknown{nearest(rule, CLASSIC)}")
        rule = CLASSIC[rule]()
    if not isinstance(rule, ClassicRule):
        raise ConfigError(f"gradient_step takes a hand-made rule, got {type(rule).__name__}; known: {', '.join(CLASSIC)}")
    return GradientStep(loss, rule)
