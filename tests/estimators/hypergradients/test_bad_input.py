"""Bad input: one line that names the field, what it got and what to do."""

import re

import pytest
import torch

import metaopt
from metaopt.errors import ConfigError
from metaopt.estimators.hypergradients import DiscountedForward, ForwardShared, Implicit, Unrolled, gradient_step, hypergradient
from metaopt.learners.update_rules import get_rule
from tests.estimators.hypergradients.problems import curved, hyperparameters, mlp, mlp_loss, number

INNER, STATE, BATCHES, OUTER, VALUES = curved(3)
SIZE = {"alpha": number(0.1)}


def shrink(state, batch, hyper):
    return {name: value if name == "count" else (1 - hyper["alpha"]) * value for name, value in state.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "unroled"}, "hypergradient method 'unroled' is unknown; did you mean 'unrolled'? known: one_step, discounted_forward"),
        ({"method": 3}, "method must be one of one_step, discounted_forward, unrolled, forward_shared, implicit or a recipe such as"),
        ({"method": Unrolled}, "method must be one of one_step"),
        ({"batches": []}, "batches is empty; a hypergradient needs at least one inner step"),
        ({"batches": torch.zeros(0, 3)}, "batches is empty"),
        ({"hyperparameters": {}}, "hyperparameters is empty; give at least one tensor by name"),
        ({"hyperparameters": {"rate": 0.1}}, "hyperparameters['rate'] must be a floating tensor, got 0.1; use torch.tensor(rate"),
        ({"hyperparameters": {"rate": torch.tensor(1)}}, "hyperparameters['rate'] must be a floating tensor, got a tensor of torch.int64"),
        ({"state0": {"x": [1.0]}}, "state0 must hold tensors only, got 1.0; wrap numbers in torch.tensor"),
        ({"state0": {"x": torch.tensor(1)}}, "state0 has no floating tensor; there is nothing to differentiate"),
        (
            {"outer_loss": lambda state: state["x"]},
            "outer_loss must return a 0-d tensor, got shape [3]; reduce it, for instance with .mean()",
        ),
        ({"outer_loss": lambda state: state["x"][:1]}, "outer_loss must return a 0-d tensor, got shape [1]"),
        ({"outer_loss": lambda state: 1.0}, "outer_loss must return a 0-d tensor, got 1.0"),
        (
            {"inner_step": lambda state, batch, hyper: {"x": state["x"]}},
            "inner_step must return a state like the one that it was given, got nothing for state['velocity'], which was torch.float64 [3]",
        ),
        (
            {"inner_step": lambda state, batch, hyper: {**state, "x": state["x"].float()}},
            "inner_step must return a state like the one that it was given, got torch.float32 [3] for state['x'], which was",
        ),
        (
            {"inner_step": lambda state, batch, hyper: {**state, "count": 1}},
            "inner_step must return a state like the one that it was given, got 1 for state['count'], which was torch.int64 [] at step 0",
        ),
        (
            {"inner_step": lambda state, batch, hyper: None},
            "inner_step must return a state like the one that it was given, got nothing for",
        ),
        ({"method": Unrolled(4)}, "window must be at most the number of batches, 3, got 4"),
        ({"method": "forward_shared"}, "hyperparameters['rate'] must have a leading axis of segments for forward_shared, got shape []"),
        ({"method": ForwardShared(2)}, "hyperparameters['rate'] must have a leading axis of 2 segments for forward_shared, got shape []"),
        (
            {"method": "forward_shared", "hyperparameters": {"a": torch.ones(2), "b": torch.ones(3)}},
            "hyperparameters['b'] must have a leading axis of 2 segments for forward_shared, got shape [3]",
        ),
        ({"method": "forward_shared", "hyperparameters": {"a": torch.ones(4)}}, "segments must be in [1, 3], the number of batches, got 4"),
        ({"method": "forward_shared", "hyperparameters": {"a": torch.ones(0)}}, "segments must be in [1, 3], the number of batches, got 0"),
        (
            {"method": Unrolled(backend="higher")},
            "backend higher runs an inner step made by gradient_step, got 'curved_step'; use backend own",
        ),
        ({"method": Implicit("cg")}, "method implicit cannot tune 'rate': it does not move the fixed point"),
    ],
)
def test_the_facade_refuses(changes, message):
    arguments = {
        "method": "unrolled", "inner_step": INNER, "state0": STATE, "batches": BATCHES, "outer_loss": OUTER, "hyperparameters": VALUES,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="^" + re.escape(message)) as caught:
        hypergradient(**{**arguments, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiscountedForward(1.5), "discount must be in [0, 1], got 1.5"),
        (lambda: DiscountedForward(float("nan")), "discount must be in [0, 1], got nan"),
        (lambda: Unrolled(0), "window must be an integer >= 1, got 0"),
        (lambda: Unrolled(2.0), "window must be an integer >= 1, got 2.0"),
        (lambda: Unrolled(checkpoint_steps=-1), "checkpoint_steps must be an integer >= 0, got -1"),
        (lambda: Unrolled(backend="jax"), "backend must be one of own, higher, got 'jax'"),
        (lambda: Unrolled(checkpoint_steps=2, backend="higher"), "backend higher keeps the whole window and knows no checkpoints"),
        (lambda: ForwardShared(0), "segments must be an integer >= 1, got 0"),
        (lambda: ForwardShared(True), "segments must be an integer >= 1, got True"),
        (lambda: ForwardShared().cost(10, 2), "the cost of forward_shared depends on its segments, got None"),
        (lambda: Implicit("lu"), "solver must be one of neumann, cg, got 'lu'"),
        (lambda: Implicit(steps=0), "steps must be an integer >= 1, got 0"),
        (lambda: Implicit(step_size=0.0), "step_size must be > 0, got 0.0"),
        (lambda: Implicit("cg", step_size=0.5), "step_size belongs to solver neumann, got 0.5 with cg"),
        (lambda: Implicit(damping=-1.0), "damping must be >= 0, got -1.0"),
        (lambda: gradient_step(mlp_loss, "adm"), "rule 'adm' of gradient_step is unknown; did you mean 'adam'?"),
        (lambda: gradient_step(mlp_loss, get_rule("mlp")), "gradient_step takes a hand-made rule, got MLPRule; known: sgd"),
    ],
)
def test_options_are_refused_when_they_are_given(make, message):
    with pytest.raises(ConfigError, match="^" + re.escape(message)):
        make()


@pytest.mark.parametrize("method", ["unrolled", "discounted_forward", Unrolled(backend="higher")])
def test_hyperparameters_that_a_rule_does_not_have(method):
    with pytest.raises(ConfigError, match=r"has no hyperparameter 'momentun'"):
        hypergradient(method, *mlp("momentum", 2), {"momentun": number(0.9)})
    with pytest.raises(ConfigError, match=r"^hyperparameters\['lr'\] of rule sgd must be 0-d, got shape \[2\]; a schedule"):
        hypergradient(method, *mlp("sgd", 2), {"lr": torch.ones(2, dtype=torch.float64)})


def test_what_higher_cannot_differentiate():
    higher = Unrolled(backend="higher")
    with pytest.raises(ConfigError, match=r"^backend higher runs the rules sgd, momentum, adam, got 'adamw'; use backend own"):
        hypergradient(higher, *mlp("adamw", 2), hyperparameters("adamw"))
    with pytest.raises(ConfigError, match=r"^backend higher returns a wrong derivative for adam's beta2"):
        hypergradient(higher, *mlp("adam", 2), hyperparameters("adam"))
    with pytest.raises(ConfigError, match=r"^backend higher returns no derivative for weight_decay at exactly 0"):
        hypergradient(higher, *mlp("sgd", 2), {"weight_decay": number(0.0)})


def bowl(x):
    return torch.cosh(x - 1).sum()


def sized(scale):
    """An inner step with a step size that enters as `scale` says, beside a hyperparameter that moves the fixed point."""

    def inner(x, batch, hyper):
        return x - scale(hyper["size"]) * torch.func.grad(lambda x: bowl(x) + 0.5 * hyper["ridge"] * x @ x)(x)

    return inner


@pytest.mark.parametrize("start", [0.0, 0.7])
@pytest.mark.parametrize("steps", [1, 100])
@pytest.mark.parametrize(
    ("scale", "size"),
    [(lambda a: a, [0.3]), (lambda a: a, [0.3, 0.2]), (lambda a: a.exp(), [-1.2]), (lambda a: a.exp(), [-1.2, -1.0])],
)
def test_step_sizes_do_not_move_a_fixed_point(scale, size, steps, start):
    """One for all weights or one for each, as it is or as a logarithm, before and after convergence."""
    values = {"ridge": number(0.2), "size": torch.tensor(size, dtype=torch.float64)}
    problem = (sized(scale), torch.full((2,), start, dtype=torch.float64), range(steps), bowl)
    with pytest.raises(ConfigError, match=r"^method implicit cannot tune 'size': it does not move the fixed point"):
        hypergradient("implicit", *problem, values)
    fixed = values["size"]
    alone = hypergradient("implicit", lambda x, b, h: problem[0](x, b, {**h, "size": fixed}), *problem[1:], {"ridge": values["ridge"]})
    assert torch.isfinite(alone["ridge"]), "what moves it is not refused"


def test_a_hyperparameter_that_nothing_depends_on():
    with pytest.raises(ConfigError, match=r"^method implicit cannot tune 'idle': it does not move the fixed point"):
        hypergradient("implicit", lambda x, b, h: 0.5 * x + h["place"], number(1.0), [0], bowl, {"place": number(0.1), "idle": number(2.0)})


@pytest.mark.parametrize("name", ["lr", "momentum"])
def test_of_a_rule_only_weight_decay_moves_it(name):
    with pytest.raises(ConfigError, match=f"^method implicit cannot tune {name!r}"):
        hypergradient("implicit", *mlp("momentum", 2), {"weight_decay": number(0.1), name: number(0.1)})


def test_conjugate_gradients_want_a_symmetric_positive_system():
    with pytest.raises(ConfigError, match=r"^solver cg needs a symmetric dF/dstate, as that of a plain gradient step"):
        hypergradient(Implicit("cg"), *mlp("momentum", 3), {"weight_decay": number(0.1)})

    def uphill(x, batch, hyper):
        return x + 0.1 * torch.func.grad(lambda x: bowl(x - hyper["place"]))(x)

    with pytest.raises(ConfigError, match=r"^solver cg met a direction of curvature -\S+ in I - dF/dstate, which must be positive"):
        hypergradient(Implicit("cg"), uphill, torch.ones(2, dtype=torch.float64), [0], bowl, {"place": number(0.1)})


def test_the_front_door():
    assert metaopt.hypergradient is hypergradient
    found = metaopt.hypergradient("one_step", shrink, STATE, BATCHES, lambda state: state["x"].sum(), SIZE)
    torch.testing.assert_close(found["alpha"], -(STATE["x"] * 0.9**2).sum(), rtol=1e-14, atol=0)
