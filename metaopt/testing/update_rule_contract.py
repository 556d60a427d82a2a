"""What the runner and the drop-in expect of an update rule, as clauses that run on any rule."""

import dataclasses
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from metaopt import seeds
from metaopt.learners.update_rules import State, Theta, UpdateRule, apply_rule, fresh_state
from metaopt.optim import LearnedOptimizer
from metaopt.testing.contract import Contract, require

__all__ = ["UPDATE_RULE_CLAUSES", "check_update_rule"]

RULE: Contract[UpdateRule] = Contract()
_SHAPES = ((), (3,), (3, 5), (4, 4), (2, 3, 3), (2, 3, 2, 2))
_LATE = 8  # updates: RAdam's first five have no second moment
_CLOSE = 1e-4  # relative, float32: a batched and a single product may differ in the last bits


def _draw(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return seeds.normal(seeds.key("check_update_rule", name), shape, dtype)


def _steps(rule: UpdateRule, theta: Theta, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, State]:
    """Return the direction and the state after three updates."""
    param = _draw("param", shape, dtype)
    state = rule.init_state(param)
    for t in range(3):
        direction, state = rule.update(theta, param, _draw(f"grad{t}", shape, dtype), state, torch.tensor(t))
    return direction, state


def _directions(rule: UpdateRule, theta: Theta) -> Tensor:
    """Return all directions of enough updates for every hyperparameter to have had its effect, of a matrix and of a vector, flat."""
    found = []
    for shape in ((3, 5), (4,)):
        param = _draw("param", shape, torch.float64)
        state = rule.init_state(param)
        for t in range(_LATE):
            direction, state = rule.update(theta, param, _draw(f"grad{t}", shape, torch.float64), state, torch.tensor(t))
            found.append(direction.reshape(-1))
    return torch.cat(found)


@RULE.clause
def static(rule: UpdateRule) -> None:
    """It is hashable, has a name, and among its hyperparameters, all floats, is `lr`."""
    hash(rule)
    require(isinstance(rule.name, str) and bool(rule.name), f"name {rule.name!r}")
    require("lr" in rule.hyperparameters, f"hyperparameters {sorted(rule.hyperparameters)}")
    require(all(isinstance(value, float) for value in rule.hyperparameters.values()), f"{rule.hyperparameters}")


@RULE.clause
def options(rule: UpdateRule) -> None:
    """It is a frozen dataclass whose init fields are its options: their values make an equal rule with an equal hash."""
    kind: Any = type(rule)
    frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    require(frozen, f"{kind.__name__}, which is no frozen dataclass")
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(kind) if field.init}
    twin = kind(**values)
    require(twin == rule and hash(twin) == hash(rule), f"another rule from its own options {values}")


@RULE.clause
def initial_theta(rule: UpdateRule) -> None:
    """`init_theta` returns the same finite float32 tensors for the same seed."""
    one, two = rule.init_theta(3), rule.init_theta(3)
    for name, value in one.items():
        require(value.dtype == torch.float32 and bool(torch.isfinite(value).all()), f"{name}: {value.dtype}, or not finite")
        require(torch.equal(value, two[name]), f"{name} differs at the second call")


@RULE.clause
def ranks(rule: UpdateRule) -> None:
    """Tensors of rank 0 to 4 get finite directions of their own shape and dtype, and a state whose layout stays as it began."""
    for dtype in (torch.float32, torch.float64):
        theta = {name: value.to(dtype) for name, value in rule.init_theta(0).items()}
        for shape in _SHAPES:
            direction, state = _steps(rule, theta, shape, dtype)
            require(direction.shape == shape, f"direction {tuple(direction.shape)} for a parameter {shape}")
            require(direction.dtype == dtype, f"direction {direction.dtype} for a parameter {dtype}")
            require(bool(torch.isfinite(direction).all()), f"a direction that is not finite for shape {shape}")
            start = rule.init_state(_draw("param", shape, dtype))
            layout = [{k: (tuple(v.shape), v.dtype) for k, v in each.items()} for each in (start, state)]
            require(layout[0] == layout[1], f"state {layout[1]} after {layout[0]} at the start")


@RULE.clause
def pure(rule: UpdateRule) -> None:
    """`update` writes to none of its arguments and returns the same bits for the same arguments."""
    theta, param, grad = rule.init_theta(0), _draw("param", (3, 5)), _draw("grad", (3, 5))
    _, state = _steps(rule, theta, (3, 5))
    arguments = [param, grad, *theta.values(), *state.values()]
    before = [value.clone() for value in arguments]
    one, two = (rule.update(theta, param, grad, state, torch.tensor(3)) for _ in range(2))
    require(all(torch.equal(a, b) for a, b in zip(before, arguments, strict=True)), "an argument that changed")
    same = torch.equal(one[0], two[0]) and all(torch.equal(one[1][name], two[1][name]) for name in one[1])
    require(same, "another result at the second call")


@RULE.clause
def batched(rule: UpdateRule) -> None:
    """Under `torch.func.vmap`, with theta stacked too, each row gets the direction that it gets alone."""
    theta, params, grads = rule.init_theta(0), _draw("param", (4, 3, 5)), _draw("grad", (4, 3, 5))
    rows = {name: value + 0.01 * _draw(name, (4, *value.shape)) for name, value in theta.items()}
    t = torch.tensor(0)

    def one(theta: Theta, param: Tensor, grad: Tensor) -> Tensor:
        return rule.update(theta, param, grad, rule.init_state(param), t)[0]

    together = vmap(one)(rows, params, grads) if rows else vmap(lambda p, g: one({}, p, g))(params, grads)
    for i in range(4):
        alone = one({name: value[i] for name, value in rows.items()}, params[i], grads[i])
        gap = float((together[i] - alone).abs().max() / (alone.abs().max() + 1e-12))
        require(gap < _CLOSE, f"row {i} off by {gap:.1e} of its size")


@RULE.clause
def drop_in(rule: UpdateRule) -> None:
    """`LearnedOptimizer`, which stacks tensors of one shape, takes the steps that each tensor takes alone; embeddings too."""
    theta = {name: value.double() for name, value in rule.init_theta(0).items()}
    lr = float(theta["lr"]) if "lr" in theta else rule.hyperparameters["lr"]
    shapes = ((3, 5), (3, 5), (4,), (3, 5))
    starts = [_draw(f"param{i}", shape, torch.float64) for i, shape in enumerate(shapes)]
    params = [nn.Parameter(start.clone()) for start in starts]
    groups: list[dict[str, Any]] = [{"params": params[:3]}, {"params": params[3:], "embedding": True}]
    optimizer = LearnedOptimizer(groups, rule)
    alone = [(start, fresh_state(rule, start, embedding=i == 3)) for i, start in enumerate(starts)]
    for t in range(3):
        for i, param in enumerate(params):
            param.grad = _draw(f"grad{i}.{t}", shapes[i], torch.float64)
            alone[i] = apply_rule(rule, theta, alone[i][0], param.grad, alone[i][1], torch.tensor(t), lr)
        optimizer.step()
        for i, param in enumerate(params):
            gap = float((param.detach() - alone[i][0]).abs().max() / starts[i].abs().max())
            require(gap < 1e-10, f"a tensor of shape {shapes[i]} off by {gap:.1e} of its size after step {t + 1}")


@RULE.clause
def overrides(rule: UpdateRule) -> None:
    """A hyperparameter found in theta takes the place of the rule's own value (`lr` is the caller's)."""
    theta = {name: value.double() for name, value in rule.init_theta(0).items()}
    plain = _directions(rule, theta)
    for name, value in rule.hyperparameters.items():
        for given in (value, 0.5 * value + 0.05):
            other = _directions(rule, {**theta, name: torch.tensor(given, dtype=torch.float64)})
            gap = float((other - plain).abs().max() / (plain.abs().max() + 1e-12))
            if given == value:
                require(gap < _CLOSE, f"{name}={given}, its own value, changes the direction by {gap:.1e} of its size")
            elif name != "lr":
                require(gap > 0, f"{name}={given} instead of {value} changes nothing")


@RULE.clause
def differentiable(rule: UpdateRule) -> None:
    """Derivatives with respect to every entry of theta and every hyperparameter exist and are finite, zero gradients included."""
    own = {name: torch.tensor(value) for name, value in rule.hyperparameters.items()}
    theta = {name: value.clone().requires_grad_() for name, value in {**own, **rule.init_theta(0)}.items()}
    param, grad = _draw("param", (3, 5)), _draw("grad", (3, 5))
    for grads in (grad, torch.where(grad > 0, grad, 0.0)):
        new, _ = apply_rule(rule, theta, param, grads, rule.init_state(param), torch.tensor(0), theta["lr"])
        found = torch.autograd.grad(new.sum(), list(theta.values()), allow_unused=True)
        for name, value in zip(theta, found, strict=True):
            require(value is None or bool(torch.isfinite(value).all()), f"d/d{name} is not finite")


@RULE.clause
def zero_lr(rule: UpdateRule) -> None:
    """A step size of 0 leaves the parameter as it is, bit for bit, whatever the gradient."""
    param = _draw("param", (3, 5))
    for bad in (1.0, float("inf"), float("nan")):
        grad = torch.full((3, 5), bad)
        new, _ = apply_rule(rule, rule.init_theta(0), param, grad, rule.init_state(param), torch.tensor(0), 0.0, 0.1)
        require(torch.equal(new, param), f"a parameter that changed at gradient {bad}")


UPDATE_RULE_CLAUSES = RULE.sentences


def check_update_rule(rule: UpdateRule, *, skip: Collection[str] = (), only: Collection[str] | None = None) -> tuple[str, ...]:
    """Check every clause of `UPDATE_RULE_CLAUSES` on a rule and return the names of those that were checked.

    Raises:
        ContractError: the first clause that is broken, with what was observed.
        ConfigError: a clause of that name does not exist.
    """
    return RULE.check(rule, skip, only)
