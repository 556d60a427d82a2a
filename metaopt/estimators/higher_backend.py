"""The package `higher` as a second way to differentiate through inner training: SGD, momentum and Adam, theta their hyperparameters.

This is the only module that imports it, and only when it is asked for. `higher` steps one run at a time, so that particles are looped over
instead of vectorised: slower, and independent of `metaopt.learners.update_rules`, which is what it is good for.

Source: Grefenstette et al., 2019, "Generalized inner loop meta-learning"; the formulas are those of the installed package (0.2.1). Its Adam
differs from torch's: lr sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps), that is eps is added before the bias correction of v.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metaopt.errors import ConfigError
from metaopt.learners.learner import Carry, GradientLearner, Learner, schedule_factor
from metaopt.learners.update_rules import ClassicRule, State, Theta
from metaopt.tasks.task import Batch, Numbers, Params, Program, Task

__all__ = ["RULES", "check_learner", "check_rule", "check_theta", "make_step", "rule_step"]

# Rule -> the hyperparameters that `higher` differentiates rightly. Checked against float64 differences in tests/estimators.
RULES = {
    "sgd": ("lr", "weight_decay"),
    "momentum": ("lr", "momentum", "weight_decay"),
    "adam": ("lr", "beta1", "eps", "weight_decay"),
}
_BRANCHING = ("momentum", "weight_decay")  # compared with 0 in Python: exactly there, their derivative is lost


def check_learner(learner: Learner) -> None:
    """Raise unless `higher` can run this learner.

    Raises:
        ConfigError: the learner is not one of SGD, momentum and Adam without further weight decay.
    """
    check_rule(learner.rule if isinstance(learner, GradientLearner) else learner)
    assert isinstance(learner, GradientLearner)
    if learner.weight_decay != 0.0:
        raise ConfigError(
            f"backend higher knows no decoupled weight decay, got weight_decay={learner.weight_decay}; use the rule's own, or backend own"
        )


def check_rule(rule: object) -> None:
    """Raise unless `higher` has this update rule.

    Raises:
        ConfigError: it is not one of SGD, momentum and Adam.
    """
    if not isinstance(rule, ClassicRule) or rule.name not in RULES:
        name = getattr(rule, "name", type(rule).__name__)
        raise ConfigError(f"backend higher runs the rules {', '.join(RULES)}, got {name!r}; use backend own")


def check_theta(rule: ClassicRule, theta: Theta) -> None:
    """Raise if `higher` would return a wrong derivative for an entry of theta.

    Raises:
        ConfigError: the entry, and what to do.
    """
    for name, value in theta.items():
        if name == "beta2" and rule.name == "adam":
            raise ConfigError(
                "backend higher returns a wrong derivative for adam's beta2 (it takes the bias correction for a constant);"
                " use backend own, or keep beta2 out of theta"
            )
        if name not in RULES[rule.name]:
            raise ConfigError(f"backend higher has no hyperparameter {name!r} for {rule.name}; it has {', '.join(RULES[rule.name])}")
        if name in _BRANCHING and bool((value == 0).any()):
            raise ConfigError(f"backend higher returns no derivative for {name} at exactly 0; start it above 0, or use backend own")


@functools.cache
def make_step(learner: Learner, program: Program, theta_stacked: bool, compiled: bool) -> Callable[..., tuple[Carry, Tensor, Tensor]]:
    """Return the same function as `metaopt.inner.step.training_step`, computed by `higher` row by row.

    Raises:
        ConfigError: `compiled`, or a program that has step scales or gradients of its own.
    """
    if compiled:
        raise ConfigError("backend higher runs uncompiled only, got compile=true; set compile: false")
    for member in ("gradients", "step_scales"):
        if getattr(program, member, None):
            raise ConfigError(f"backend higher computes the task's gradient itself, and this task has {member} of its own; use backend own")
    assert isinstance(learner, GradientLearner)
    rule = learner.rule
    assert isinstance(rule, ClassicRule)

    def step(theta: Theta, numbers: Numbers, shared: Batch, carry: Carry, batch: Batch) -> tuple[Carry, Tensor, Tensor]:
        check_theta(rule, theta)
        rows = len(carry["t"])
        done = [
            _one(
                learner,
                rule,
                _row(theta, i) if theta_stacked else theta,
                Task(program, _row(numbers, i), shared),
                _row(carry, i),
                _row(batch, i),
            )
            for i in range(rows)
        ]
        stacked = [tree_map(lambda *leaves: torch.stack(leaves), *parts) for parts in zip(*done, strict=True)]
        return stacked[0], stacked[1], stacked[2]

    return step


def _row(tree: Any, i: int) -> Any:
    return tree_map(lambda leaf: leaf[i], tree)


def _one(learner: GradientLearner, rule: ClassicRule, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, Tensor, Tensor]:
    """Return (carry, raw loss, normalised loss) of one particle's step."""
    tracking = torch.is_grad_enabled()
    hypers: dict[str, Any] = {**rule.hyperparameters, **theta}
    hypers["lr"] = hypers["lr"] * schedule_factor(learner.schedule, carry["t"], task.horizon)
    after, loss = rule_step(rule, hypers, carry, functools.partial(task.loss, batch=batch), tracking)
    return after, loss, task.normalise(loss)


def rule_step(
    rule: ClassicRule, hypers: dict[str, Any], carry: Carry, loss_of: Callable[[Params], Tensor], tracking: bool
) -> tuple[Carry, Tensor]:
    """Return (carry, loss before it) of one update of a rule, with the graph of both if `tracking`, else without any.

    Args:
        rule: one that `check_rule` lets pass.
        hypers: all its hyperparameters, those in tensors to be differentiated.
        carry: `params`, `state` (the rule's accumulators for each of them) and the step counter `t`.
        loss_of: the loss as a function of the parameters.
        tracking: keep the graph.
    """
    with torch.enable_grad():
        # `higher` leaves out what does not require a gradient, also where only hyperparameters are of interest.
        params = {name: p if p.requires_grad else p.detach().requires_grad_() for name, p in carry["params"].items()}
        loss = loss_of(params)
        optimizer = _differentiable(rule.name, params, hypers, tracking)
        _give(optimizer, rule.name, list(carry["state"].values()), int(carry["t"]))
        new_params = dict(zip(params, optimizer.step(loss, params=list(params.values())), strict=True))
        new_state = dict(zip(params, _take(optimizer, rule.name, list(params.values())), strict=True))
        result = {"params": new_params, "state": new_state, "t": carry["t"] + 1}, loss
    return result if tracking else tree_map(lambda leaf: leaf.detach(), result)


def _differentiable(name: str, params: dict[str, Tensor], hypers: dict[str, Any], tracking: bool) -> Any:
    """Return `higher`'s optimizer of a rule, its settings replaced by these hyperparameters."""
    import higher

    reference = [p.detach().requires_grad_() for p in params.values()]
    settings = {"lr": hypers["lr"], "weight_decay": hypers["weight_decay"]}
    if name == "adam":
        plain: torch.optim.Optimizer = torch.optim.Adam(reference)
        settings |= {"betas": (hypers["beta1"], hypers["beta2"]), "eps": hypers["eps"]}
    else:
        plain = torch.optim.SGD(reference)
        settings |= {"momentum": hypers["momentum"]} if name == "momentum" else {}
    override = {key: [value] for key, value in settings.items()}
    return higher.optim.get_diff_optim(plain, reference, override=override, track_higher_grads=tracking)


_STATE = {"sgd": {}, "momentum": {"momentum": "momentum_buffer"}, "adam": {"m": "exp_avg", "v": "exp_avg_sq"}}


def _give(optimizer: Any, name: str, states: list[State], t: int) -> None:
    """Put our accumulators into the optimizer. A zero momentum buffer is the same as none, also to first order."""
    for index, state in enumerate(states):
        if _STATE[name]:
            optimizer.state[0][index] = {theirs: state[ours] for ours, theirs in _STATE[name].items()} | {"step": t}


def _take(optimizer: Any, name: str, params: list[Tensor]) -> list[State]:
    return [{ours: optimizer.state[0][index][theirs] for ours, theirs in _STATE[name].items()} for index in range(len(params))]
