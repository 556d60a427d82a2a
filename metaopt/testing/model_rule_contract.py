"""What the runner and the drop-in expect of a rule that sees all tensors, as clauses that run on any such rule."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from metaopt import seeds
from metaopt.learners.update_rules import ModelRule, ModelState, Theta, apply_model_rule
from metaopt.optim import LearnedOptimizer
from metaopt.testing.contract import Contract, require
from metaopt.testing.update_rule_contract import initial_theta, options, static

__all__ = ["MODEL_RULE_CLAUSES", "check_model_rule"]

RULE: Contract[Any] = Contract()
for _same in (static, options, initial_theta):  # what holds for rules of both kinds
    RULE.clause(_same)

Params = dict[str, Tensor]
_SHAPES = {"scalar": (), "bias": (3,), "weight": (3, 5), "square": (4, 4), "cube": (2, 3, 3), "kernel": (2, 3, 2, 2)}
_STEPS, _HORIZON = 3, 8.0
_CLOSE = 1e-4  # relative, float32: sums in another order differ in the last bits


def _draw(name: str, dtype: torch.dtype = torch.float32, rows: tuple[int, ...] = (), shapes: Any = None) -> Params:
    found = (shapes or _SHAPES).items()
    return {key: seeds.normal(seeds.key("check_model_rule", name, key), (*rows, *shape), dtype) for key, shape in found}


def _theta(rule: ModelRule, dtype: torch.dtype = torch.float32) -> Theta:
    return {name: value.to(dtype) for name, value in rule.init_theta(0).items()}


def _given(t: int, like: Tensor) -> dict[str, Any]:
    """Return what a step knows besides gradients."""
    return {"t": torch.tensor(t), "loss": like.new_tensor(2.0 - 0.3 * t), "horizon": like.new_tensor(_HORIZON)}


def _walk(rule: ModelRule, theta: Theta, params: Params, grads: list[Params]) -> tuple[list[Params], ModelState]:
    """Return the directions of each step, which moves nothing, and the last state."""
    state, found = rule.init_state(theta, params), []
    for t, each in enumerate(grads):
        moved, state = apply_model_rule(rule, theta, params, each, state, lr=1.0, **_given(t, next(iter(params.values()))))
        found.append({name: params[name] - moved[name] for name in params})
    return found, state


def _walked(rule: ModelRule, dtype: torch.dtype = torch.float32) -> tuple[list[Params], ModelState]:
    grads = [_draw(f"grad{t}", dtype) for t in range(_STEPS)]
    return _walk(rule, _theta(rule, dtype), _draw("param", dtype), grads)


def _layout(state: ModelState) -> dict[tuple[str, str], tuple[Any, ...]]:
    parts = {**state["tensors"], "the whole model": state["shared"]}
    return {(name, key): (tuple(value.shape), value.dtype) for name, part in parts.items() for key, value in part.items()}


def _gap(one: Params, other: Params) -> float:
    """Return the largest difference relative to the largest value."""
    size = max(float(value.abs().max()) for value in one.values())
    return max(float((one[name] - other[name].reshape(one[name].shape)).abs().max()) for name in one) / (size + 1e-12)


@RULE.clause
def ranks(rule: ModelRule) -> None:
    """Tensors of rank 0 to 4 get finite directions of their own shape and dtype, and a state whose layout stays as it began."""
    for dtype in (torch.float32, torch.float64):
        theta, params, grads = _theta(rule, dtype), _draw("param", dtype), _draw("grad0", dtype)
        state = rule.init_state(theta, params)
        given = _given(0, params["scalar"])
        loss, horizon = given["loss"] if rule.needs_loss else None, given["horizon"] if rule.needs_horizon else None
        directions, after = rule.update(theta, params, grads, state, given["t"], loss, horizon)
        require(directions.keys() == params.keys(), f"directions of {sorted(directions)} for {sorted(params)}")
        for name, value in directions.items():
            require(value.shape == params[name].shape, f"direction {tuple(value.shape)} for a parameter {tuple(params[name].shape)}")
            require(value.dtype == dtype, f"direction {value.dtype} for a parameter {dtype}")
        _, last = _walked(rule, dtype)
        for later in (after, last):
            require(_layout(later) == _layout(state), f"state {_layout(later)} after {_layout(state)} at the start")
    finite = all(bool(torch.isfinite(value).all()) for each in _walked(rule)[0] for value in each.values())
    require(finite, "a direction that is not finite")


@RULE.clause
def names(rule: ModelRule) -> None:
    """Other names in another order give the same directions."""
    other = {name: f"z{9 - place}" for place, name in enumerate(_SHAPES)}

    def renamed(params: Params) -> Params:
        return {other[name]: params[name] for name in reversed(params)}

    grads = [_draw(f"grad{t}") for t in range(_STEPS)]
    plain, _ = _walk(rule, _theta(rule), _draw("param"), grads)
    again, _ = _walk(rule, _theta(rule), renamed(_draw("param")), [renamed(each) for each in grads])
    gap = max(_gap(one, {name: two[other[name]] for name in one}) for one, two in zip(plain, again, strict=True))
    require(gap < _CLOSE, f"directions off by {gap:.1e} of their size")


@RULE.clause
def scalars(rule: ModelRule) -> None:
    """A tensor of shape [] gets the direction that it gets as shape [1]."""
    grads = [_draw(f"grad{t}") for t in range(_STEPS)]
    plain, _ = _walk(rule, _theta(rule), _draw("param"), grads)
    wide = [{**each, "scalar": each["scalar"].reshape(1)} for each in (_draw("param"), *grads)]
    again, _ = _walk(rule, _theta(rule), wide[0], wide[1:])
    gap = max(_gap(one, two) for one, two in zip(plain, again, strict=True))
    require(gap < _CLOSE, f"directions off by {gap:.1e} of their size")


@RULE.clause
def joining(rule: ModelRule) -> None:
    """At the start a tensor's state does not depend on the other tensors, nor what is shared on any."""
    theta, params = _theta(rule), _draw("param")
    whole = rule.init_state(theta, params)
    for name, param in params.items():
        alone = rule.init_state(theta, {"alone": param})
        pairs = ((whole["tensors"][name], alone["tensors"]["alone"]), (whole["shared"], alone["shared"]))
        for place, (one, two) in zip((name, "the whole model"), pairs, strict=True):
            same = one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())
            require(same, f"another state of {place} where {name} is alone")


@RULE.clause
def pure(rule: ModelRule) -> None:
    """`update` writes to none of its arguments and returns the same bits for the same arguments."""
    theta, params, grads = _theta(rule), _draw("param"), _draw("grad")
    _, state = _walked(rule)
    given = _given(_STEPS, params["scalar"])
    parts = [*state["tensors"].values(), state["shared"], theta, params, grads]
    arguments = [value for part in parts for value in part.values()]
    before = [value.clone() for value in arguments]
    one, two = (apply_model_rule(rule, theta, params, grads, state, lr=1.0, **given) for _ in range(2))
    require(all(torch.equal(a, b) for a, b in zip(before, arguments, strict=True)), "an argument that changed")
    kept = [
        [*found[0].values(), *(v for part in (*found[1]["tensors"].values(), found[1]["shared"]) for v in part.values())]
        for found in (one, two)
    ]
    require(all(torch.equal(a, b) for a, b in zip(*kept, strict=True)), "another result at the second call")


@RULE.clause
def batched(rule: ModelRule) -> None:
    """Under `torch.func.vmap`, with theta stacked too, each row gets the directions that it gets alone."""
    theta, params = _theta(rule), _draw("param", rows=(3,))
    grads = [_draw(f"grad{t}", rows=(3,)) for t in range(_STEPS)]
    noise = _draw("theta", rows=(3,), shapes={name: tuple(value.shape) for name, value in theta.items()})
    rows = {name: value + 0.01 * noise[name] for name, value in theta.items()}

    def one(theta: Theta, params: Params, grads: list[Params]) -> Params:
        return _walk(rule, theta, params, grads)[0][-1]

    together = vmap(one)(rows, params, grads)
    for i in range(3):
        row = [{name: value[i] for name, value in each.items()} for each in (rows, params, *grads)]
        gap = _gap(one(row[0], row[1], row[2:]), {name: value[i] for name, value in together.items()})
        require(gap < _CLOSE, f"row {i} off by {gap:.1e} of its size")


@RULE.clause
def drop_in(rule: ModelRule) -> None:
    """`LearnedOptimizer` takes the steps of `apply_model_rule`, past the end of the run too, and changes no meta-parameter."""
    theta, values = _theta(rule, torch.float64), _draw("param", torch.float64)
    lr = float(theta["lr"]) if "lr" in theta else rule.hyperparameters["lr"]
    params = {name: nn.Parameter(value.clone()) for name, value in values.items()}
    optimizer = LearnedOptimizer(params.items(), rule, total_steps=_STEPS)
    state, horizon = rule.init_state(theta, values), torch.tensor(float(_STEPS), dtype=torch.float64)
    for t in range(_STEPS + 1):
        grads, loss = _draw(f"grad{t}", torch.float64), torch.tensor(2.0 - 0.3 * t, dtype=torch.float64)
        for name, param in params.items():
            param.grad = grads[name].clone()
        values, state = apply_model_rule(rule, theta, values, grads, state, torch.tensor(t), lr, loss=loss, horizon=horizon)
        optimizer.step(loss=loss)
        gap = _gap(values, {name: param.detach() for name, param in params.items()})
        require(gap < 1e-10, f"parameters off by {gap:.1e} of their size after step {t + 1}")


@RULE.clause
def differentiable(rule: ModelRule) -> None:
    """Derivatives with respect to every entry of theta exist and are finite, zero gradients included."""
    params, full = _draw("param"), [_draw(f"grad{t}") for t in range(_STEPS)]
    for grads in (full, [{name: torch.zeros_like(value) for name, value in each.items()} for each in full]):
        theta = {name: value.clone().requires_grad_() for name, value in _theta(rule).items()}
        total = torch.stack([value.sum() for value in _walk(rule, theta, params, grads)[0][-1].values()]).sum()
        found = torch.autograd.grad(total, list(theta.values()), allow_unused=True)
        for name, value in zip(theta, found, strict=True):
            require(value is None or bool(torch.isfinite(value).all()), f"d/d{name} is not finite")


@RULE.clause
def zero_lr(rule: ModelRule) -> None:
    """A step size of 0 leaves every parameter as it is, bit for bit, whatever the gradients."""
    theta, params = _theta(rule), _draw("param")
    for bad in (1.0, float("inf"), float("nan")):
        grads = {name: torch.full_like(param, bad) for name, param in params.items()}
        given = _given(0, params["scalar"])
        new, _ = apply_model_rule(rule, theta, params, grads, rule.init_state(theta, params), lr=0.0, weight_decay=0.1, **given)
        require(all(torch.equal(new[name], param) for name, param in params.items()), f"a parameter that changed at gradient {bad}")


MODEL_RULE_CLAUSES = RULE.sentences


def check_model_rule(rule: ModelRule, *, skip: Collection[str] = (), only: Collection[str] | None = None) -> tuple[str, ...]:
    """Check every clause of `MODEL_RULE_CLAUSES` on a rule that sees all tensors and return the names of those that were checked.

    Raises:
        ContractError: the first clause that is broken, with what was observed.
        ConfigError: a clause of that name does not exist.
    """
    return RULE.check(rule, skip, only)
