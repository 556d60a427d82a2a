"""One table, the same tests: every bundled rule that sees all tensors, against a reference of its own and against its contract."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners.forward_mode import jvp
from metaopt.learners.update_rules import FEATURES, MODEL_RULES, ModelRule, apply_model_rule, get_model_rule
from tests.learners import model_rule_reference as reference

# Ranks 0 to 4, square and tied sizes, axes of one.
SHAPES = {"a": (), "b": (1,), "c": (4,), "d": (3, 4), "e": (3, 3), "f": (1, 3), "g": (2, 3, 2), "h": (2, 2, 1, 3), "i": (4, 2)}
FEW = {"m": (3, 2), "v": (2,), "s": ()}
STEPS, HORIZON = 20, 50.0


@dataclass(frozen=True)
class Case:
    """A rule with options that keep it small, its reference, and entries of theta that make a direction when they are not zero."""

    rule: str
    reference: Callable[..., Any]
    head: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.rule, *(f"{key}={value}" for key, value in self.options.items())])

    def make(self, start: str = "random") -> ModelRule:
        return get_model_rule(self.rule, start=start, **self.options)


SMALL = {"lstm_hidden": 5, "mixture": 3}
BANK, NETWORK = ("bank_w2", "bank_b2"), ("rule_w2", "rule_b2")
CASES = [
    Case("velo", reference.VeLOReference, BANK, SMALL),
    Case("velo", reference.VeLOReference, BANK, {**SMALL, "parameter_scale": False, "mixture_factor": 1.0, "mlp_hidden": 3}),
    Case("celo", reference.CeloReference, NETWORK, {"schedule_hidden": 5}),
    Case("celo", reference.CeloReference, (), {"schedule_hidden": 5, "direction": "adam"}),
    Case("rnn_mlp", reference.RNNMLPReference, ("w2", "b2"), {"lstm_hidden": 5, "mlp_hidden": 6}),
    Case(
        "hierarchical_rnn", reference.HierarchicalRNNReference, ("direction_weight", "shortcut"), {"weight_hidden": 3, "tensor_hidden": 4}
    ),
]
EACH = pytest.mark.parametrize("case", CASES, ids=str)


def draw(*parts: object, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return seeds.normal(seeds.key("test", *parts), shape, dtype)


def theta_of(rule: ModelRule, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Initial theta with noise on every entry: biases and initial states are not zero."""
    return {
        name: value.to(dtype) + 0.1 * draw("theta", name, shape=tuple(value.shape), dtype=dtype)
        for name, value in rule.init_theta(3).items()
    }


def loss_at(t: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Falls, with noise, and one spike that the buffer caps."""
    return (2.0 * torch.exp(-torch.tensor(t / 8)) + 0.1 * torch.sin(torch.tensor(3.0 * t)) + (5.0 if t == 7 else 0.0)).to(dtype)


def inputs_at(t: int, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Gradients of very different sizes, some beyond every clip."""
    sizes = {name: 10.0 ** (ord(name[0]) % 4 - 2) for name in shapes}
    return {name: (1e5 if t == 5 else 1.0) * sizes[name] * draw("g", name, t, shape=shape, dtype=dtype) for name, shape in shapes.items()}


def unroll(rule, theta, params, steps=STEPS, horizon=HORIZON, lr=1.0, shapes=None):
    """Return (parameters, state, directions of each step) of an inner run on given gradients; in theta's dtype."""
    dtype, state, seen = next(iter(params.values())).dtype, rule.init_state(theta, params), []
    length = torch.tensor(horizon, dtype=dtype)
    for t in range(steps):
        grads = inputs_at(t, shapes or {name: tuple(p.shape) for name, p in params.items()}, dtype)
        before = params
        params, state = apply_model_rule(rule, theta, params, grads, state, torch.tensor(t), lr, 0.0, loss_at(t, dtype), length)
        seen.append({name: before[name] - params[name] for name in params})
    return params, state, seen


def start(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: draw("p", name, shape=shape, dtype=dtype) for name, shape in shapes.items()}


def test_all_rules_are_here() -> None:
    assert {case.rule for case in CASES} == set(MODEL_RULES)
    assert set(MODEL_RULES) <= set(FEATURES)


@EACH
def test_equals_its_reference(case: Case) -> None:
    rule = case.make()
    theta = theta_of(rule)
    twin = case.reference({name: value.numpy() for name, value in theta.items()}, SHAPES, case.options)
    params = start(SHAPES)
    state, horizon = rule.init_state(theta, params), torch.tensor(HORIZON, dtype=torch.float64)
    for t in range(STEPS):
        grads, loss = inputs_at(t, SHAPES), loss_at(t)
        steps, state = rule.update(theta, params, grads, state, torch.tensor(t), loss, horizon)
        expected = twin.step({k: v.numpy() for k, v in params.items()}, {k: v.numpy() for k, v in grads.items()}, t, float(loss), HORIZON)
        for name in SHAPES:
            torch.testing.assert_close(steps[name], torch.as_tensor(expected[name]), rtol=1e-10, atol=1e-14)
        params = {name: params[name] - 3.0 * steps[name] for name in params}


@EACH
def test_tensors_may_have_other_names_and_another_order(case: Case) -> None:
    rule = case.make()
    theta, params = theta_of(rule), start(FEW)
    other = {"s": "zz", "m": "alpha", "v": "s"}
    state, renamed = rule.init_state(theta, params), rule.init_state(theta, {other[name]: params[name] for name in other})
    for t in range(4):
        grads, loss, horizon = inputs_at(t, FEW), loss_at(t), torch.tensor(HORIZON, dtype=torch.float64)
        steps, state = rule.update(theta, params, grads, state, torch.tensor(t), loss, horizon)
        turned = [{other[name]: tree[name] for name in other} for tree in (params, grads)]
        twins, renamed = rule.update(theta, *turned, renamed, torch.tensor(t), loss, horizon)
        for name in FEW:
            torch.testing.assert_close(twins[other[name]], steps[name], rtol=1e-11, atol=1e-15)


@EACH
def test_a_scalar_is_a_vector_of_one(case: Case) -> None:
    rule = case.make()
    theta = theta_of(rule)
    shapes = {"m": (3, 2), "s": ()}
    params = start(shapes)
    last, _, _ = unroll(rule, theta, params, 5)
    same, _, _ = unroll(rule, theta, {"m": params["m"], "s": params["s"].reshape(1)}, 5)
    torch.testing.assert_close(same["s"].reshape(()), last["s"], rtol=1e-12, atol=0)
    assert last["s"].shape == ()


@EACH
def test_tensors_without_elements_change_nothing(case: Case) -> None:
    rule = case.make()
    theta, params = theta_of(rule), start(FEW)
    last, _, _ = unroll(rule, theta, params, 4)
    more, state, _ = unroll(rule, theta, {"empty": torch.zeros(0, 3, dtype=torch.float64), **params}, 4)
    assert more["empty"].shape == (0, 3)
    assert "empty" in state["tensors"]
    for name in FEW:
        assert torch.equal(more[name], last[name])
    alone, _, _ = unroll(rule, theta, {"empty": torch.zeros(0, dtype=torch.float64)}, 2)
    assert alone["empty"].shape == (0,)


@EACH
def test_a_state_is_independent_of_the_other_tensors(case: Case) -> None:
    """So that parameters can join later."""
    rule = case.make()
    theta, params = theta_of(rule), start(FEW)
    together, alone = rule.init_state(theta, params), rule.init_state(theta, {"v": params["v"]})
    assert all(torch.equal(value, together["tensors"]["v"][key]) for key, value in alone["tensors"]["v"].items())
    assert all(torch.equal(value, together["shared"][key]) for key, value in alone["shared"].items())
    assert rule.init_state(theta, {})["tensors"] == {}


@EACH
def test_particles_in_one_tensor_equal_a_loop(case: Case) -> None:
    rule = case.make()
    center = theta_of(rule)
    stacked = {name: torch.stack([value, value + 0.01 * draw("eps", name, shape=tuple(value.shape))]) for name, value in center.items()}
    params = {name: torch.stack([p, 0.5 * p]) for name, p in start(FEW).items()}
    both = vmap(lambda theta, p: unroll(rule, theta, p, 4, shapes=FEW)[0])(stacked, params)
    for i in range(2):
        alone, _, _ = unroll(rule, {name: value[i] for name, value in stacked.items()}, {name: p[i] for name, p in params.items()}, 4)
        for name in FEW:
            torch.testing.assert_close(both[name][i], alone[name], rtol=1e-10, atol=1e-14)


@EACH
def test_derivatives_in_theta_equal_differences(case: Case) -> None:
    rule = case.make()
    theta, params = theta_of(rule), start(FEW)
    way = {name: draw("way", name, shape=tuple(value.shape)) for name, value in theta.items()}

    def objective(theta):
        last, _, _ = unroll(rule, theta, params, 4, lr=10.0)
        return sum((p * p).sum() for p in last.values())

    backward = grad(objective)(theta)
    assert all(torch.isfinite(value).all() for value in backward.values())
    along = float(sum((backward[name] * way[name]).sum() for name in way))
    _, forward = jvp(objective, (theta,), (way,))
    high, low = (objective({name: theta[name] + sign * 1e-6 * way[name] for name in theta}) for sign in (1, -1))
    assert along == pytest.approx(float(high - low) / 2e-6, rel=1e-5, abs=1e-9)
    assert float(forward) == pytest.approx(along, rel=1e-8)


@EACH
@pytest.mark.parametrize("begin", ["adam", "random"])
def test_derivatives_are_finite_where_nothing_ever_moves(case: Case, begin: str) -> None:
    """Zero weights, zero gradients, equal losses, in float32: bias vectors and dead units at the start of a run."""
    rule = case.make(begin)
    theta = rule.init_theta(0)

    def objective(theta, scale):
        params = {name: scale * torch.zeros(shape) for name, shape in FEW.items()}
        state = rule.init_state(theta, params)
        for t in range(3):
            grads = {name: scale * p for name, p in params.items()}
            params, state = apply_model_rule(
                rule, theta, params, grads, state, torch.tensor(t), 1.0, 0.0, torch.ones(()), torch.tensor(9.0)
            )
        return sum(p.sum() for p in params.values())

    both = grad(objective, (0, 1))(theta, torch.ones(()))
    assert all(torch.isfinite(value).all() for value in [*both[0].values(), both[1]])


@EACH
def test_a_silent_head_moves_nothing(case: Case) -> None:
    if not case.head:
        pytest.skip("the direction is Adam's")
    rule = case.make()
    theta = {name: torch.zeros_like(value) if name in case.head else value for name, value in theta_of(rule).items()}
    params = start(SHAPES)
    last, _, _ = unroll(rule, theta, params, 3)
    assert all(torch.equal(last[name], params[name]) for name in params)


@EACH
@pytest.mark.parametrize("begin", ["adam", "random"])
@pytest.mark.parametrize("horizon", [1.0, 4.0, 400.0])
def test_a_wrong_horizon_does_no_harm(case: Case, begin: str, horizon: float) -> None:
    """40 steps, ten times too long or too short a horizon, and one step: finite, and steps stay within bounds."""
    rule = case.make(begin)
    params = start(FEW, torch.float32)
    last, state, seen = unroll(rule, rule.init_theta(1), params, 40, horizon)
    assert all(torch.isfinite(value).all() for tree in (last, *state["tensors"].values(), state["shared"]) for value in tree.values())
    largest = max(float(step.abs().max()) for steps in seen for step in steps.values())
    assert largest < 0.1


@EACH
def test_missing_inputs_are_named(case: Case) -> None:
    rule = case.make()
    theta, params = theta_of(rule), start(FEW)
    grads, state, t = inputs_at(0, FEW), rule.init_state(theta, params), torch.tensor(0)
    if rule.needs_loss:
        with pytest.raises(ConfigError, match="loss"):
            rule.update(theta, params, grads, state, t, None, torch.tensor(9.0))
    if rule.needs_horizon:
        with pytest.raises(ConfigError, match="steps of the run"):
            rule.update(theta, params, grads, state, t, loss_at(0), None)
    assert (rule.needs_loss, rule.needs_horizon) == {
        "velo": (True, True), "celo": (True, True), "rnn_mlp": (True, False), "hierarchical_rnn": (False, False),
    }[case.rule]  # fmt: skip


@EACH
def test_theta_is_a_function_of_the_seed(case: Case) -> None:
    rule = case.make()
    one, same, other = rule.init_theta(1), rule.init_theta(1), rule.init_theta(2)
    assert all(torch.equal(one[name], same[name]) and one[name].dtype == torch.float32 for name in one)
    assert sum(not torch.equal(one[name], other[name]) for name in one) >= 4  # biases begin at constants
    assert hash(rule) == hash(case.make())


@pytest.mark.slow
@EACH
def test_update_is_one_graph(case: Case) -> None:
    rule = case.make()
    theta, params = theta_of(rule), start(FEW)
    state, horizon = rule.init_state(theta, params), torch.tensor(HORIZON, dtype=torch.float64)
    torch.compiler.reset()
    compiled = torch.compile(rule.update, fullgraph=True, backend="eager")
    for t in range(2):
        arguments = (theta, params, inputs_at(t, FEW), state, torch.tensor(t), loss_at(t), horizon)
        steps, state = rule.update(*arguments)
        for name, step in compiled(*arguments)[0].items():
            torch.testing.assert_close(step, steps[name], rtol=1e-12, atol=1e-15)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of the compiler itself
def test_a_compiled_update_makes_the_same_steps() -> None:
    rule = CASES[2].make()
    theta = rule.init_theta(0)
    params = start(FEW, torch.float32)
    state, horizon = rule.init_state(theta, params), torch.tensor(HORIZON)
    compiled = torch.compile(rule.update, fullgraph=True)
    arguments = (theta, params, inputs_at(0, FEW, torch.float32), state, torch.tensor(0), loss_at(0, torch.float32), horizon)
    steps, _ = rule.update(*arguments)
    for name, step in compiled(*arguments)[0].items():
        torch.testing.assert_close(step, steps[name], rtol=1e-4, atol=1e-8)
