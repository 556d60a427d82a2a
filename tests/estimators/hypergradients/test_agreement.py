"""Methods that compute one number in different ways, and the same method under other circumstances."""

import copy
import gc

import pytest
import torch
from torch.func import jacfwd, vmap

from metaopt.estimators.hypergradients import (
    METHODS,
    DiscountedForward,
    ForwardShared,
    Implicit,
    OneStep,
    Unrolled,
    gradient_step,
    hypergradient,
)
from metaopt.learners.update_rules import apply_rule
from tests.estimators.hypergradients import problems
from tests.estimators.hypergradients.problems import HYPERPARAMETERS, curved, hyperparameters, mlp, number

TIGHT = {"rtol": 1e-12, "atol": 1e-15}


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **(tolerance or TIGHT))


@pytest.mark.parametrize("rule", HYPERPARAMETERS)
def test_reverse_forward_and_jacfwd_are_one_number(rule):
    problem, values = mlp(rule, 4), hyperparameters(rule)
    reverse = hypergradient("unrolled", *problem, values)
    assert_same(hypergradient(DiscountedForward(1.0), *problem, values), reverse)
    assert_same(jacfwd(lambda h: problems.run(*problem, h))(values), reverse)


def test_reverse_forward_and_jacfwd_for_any_shape():
    inner, state, batches, outer, values = curved(6)
    reverse = hypergradient("unrolled", inner, state, batches, outer, values)
    assert_same(hypergradient("discounted_forward", inner, state, batches, outer, values), reverse)
    assert_same(jacfwd(lambda h: problems.run(inner, state, batches, outer, h))(values), reverse)


@pytest.mark.parametrize("window", [1, 5, 9])
@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 9, 20])
def test_checkpoints_change_nothing(window, pieces):
    problem = curved(9)
    assert_same(hypergradient(Unrolled(window, pieces), *problem), hypergradient(Unrolled(window, 9), *problem))


def test_one_step_is_a_window_of_one_and_a_discount_of_zero():
    problem = curved(5)
    found = hypergradient("one_step", *problem)
    assert_same(found, hypergradient(Unrolled(1), *problem))
    assert_same(found, hypergradient(DiscountedForward(0.0), *problem))


def test_a_discount_close_to_zero_is_close_to_zero_discount():
    """The shortcut at 0 is the limit of the recursion."""
    problem = curved(5)
    assert_same(hypergradient(DiscountedForward(1e-9), *problem), hypergradient(DiscountedForward(0.0), *problem), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("segments", [1, 2, 3, 7])
def test_shared_forward_is_reverse_on_the_schedule(segments):
    inner, state, batches, outer, values = curved(7)
    schedules = {name: torch.stack([value * (1 + 0.1 * i) for i in range(segments)]) for name, value in values.items()}

    def scheduled(state, t, hyper):
        return inner(state, batches[t], {name: value[t * segments // 7] for name, value in hyper.items()})

    expected = hypergradient("unrolled", scheduled, state, range(7), outer, schedules)
    assert_same(hypergradient(ForwardShared(segments), inner, state, batches, outer, schedules), expected)
    assert_same(hypergradient("forward_shared", inner, state, batches, outer, schedules), expected)


def test_a_shared_schedule_of_equal_entries_sums_to_the_exact_derivative():
    problem, values = mlp("adam", 6), hyperparameters("adam")
    shared = hypergradient(ForwardShared(3), *problem, {name: value.expand(3) for name, value in values.items()})
    assert_same({name: value.sum() for name, value in shared.items()}, hypergradient("unrolled", *problem, values))


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("rule", ["sgd", "momentum"])
def test_higher_equals_own(rule, window):
    problem, values = mlp(rule, 5), hyperparameters(rule)
    assert_same(
        hypergradient(Unrolled(window, backend="higher"), *problem, values),
        hypergradient(Unrolled(window), *problem, values),
        rtol=1e-10,
        atol=1e-12,
    )


def test_highers_adam_is_ours_but_for_its_eps():
    """The two formulas meet as eps vanishes; at 1e-2 they are apart."""
    problem = mlp("adam", 5)
    gaps = []
    for eps in (1e-2, 1e-12):
        values = {"lr": number(0.05), "beta1": number(0.8), "eps": number(eps)}
        own, other = (hypergradient(Unrolled(backend=backend), *problem, values)["lr"] for backend in ("own", "higher"))
        gaps.append(abs(float(own / other) - 1))
    assert gaps[1] < 1e-6 < 1e-4 < gaps[0]


ALL = (OneStep(), DiscountedForward(), DiscountedForward(0.5), Unrolled(), Unrolled(2, 1), ForwardShared(2))


def given(method, values):
    return {name: torch.stack([value] * 2) for name, value in values.items()} if isinstance(method, ForwardShared) else values


@pytest.mark.parametrize("method", ALL, ids=str)
def test_nothing_is_changed_and_no_graph_is_left(method):
    inner, state, batches, outer, values = curved(4)
    offset = torch.zeros(3, dtype=torch.float64, requires_grad=True)  # what a function closes over, and would be tracked with

    def loose(state, batch, hyper):
        return inner({**state, "x": state["x"] + offset}, batch, hyper)

    values = given(method, {name: value.requires_grad_() for name, value in values.items()})
    state["x"].requires_grad_()
    before = copy.deepcopy([(name, value.detach()) for name, value in {**state, **values, "batches": batches}.items()])
    found = hypergradient(method, loose, state, batches, outer, values)
    assert all(not value.requires_grad and value.grad_fn is None for value in found.values())
    assert offset.grad is None
    for name, value in before:
        assert torch.equal({**state, **values, "batches": batches}[name], value)


def test_what_a_function_closes_over_makes_no_graph_on_the_way():
    inner, state, batches, outer, values = curved(4)
    offset, tracked = torch.zeros(3, dtype=torch.float64, requires_grad=True), []

    def loose(state, batch, hyper):
        tracked.append(state["x"].requires_grad)
        return inner({**state, "x": state["x"] + offset}, batch, hyper)

    hypergradient("one_step", loose, state, batches, outer, values)
    assert tracked[:3] == [False] * 3


@pytest.mark.parametrize("method", ALL, ids=str)
def test_callers_without_gradients_get_the_same(method):
    *problem, values = curved(4)
    values = given(method, values)
    expected = hypergradient(method, *problem, values)
    with torch.no_grad():
        assert_same(hypergradient(method, *problem, values), expected)
    with torch.inference_mode():
        assert_same(hypergradient(method, *problem, values), expected)


@pytest.mark.parametrize("method", [*ALL, Unrolled(backend="higher")], ids=str)
@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_float32_follows_float64(method, rule):
    names = ("lr", "weight_decay")
    precise = {name: value for name, value in hyperparameters(rule).items() if name in names}
    single = {name: value.float() for name, value in precise.items()}
    found = hypergradient(method, *mlp(rule, 4, torch.float32), given(method, single))
    expected = hypergradient(method, *mlp(rule, 4), given(method, precise))
    assert all(value.dtype == torch.float32 for value in found.values())
    assert_same({name: value.double() for name, value in found.items()}, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("method", ALL, ids=str)
def test_scalar_states_in_float32(method):
    """Forward mode makes float64 of the tangent of a 0-d float32 number times a Python one."""

    def inner(state, batch, hyper):
        return 0.9 * state - hyper["rate"] * torch.func.grad(lambda x: 2.0 * x.cosh())(state)

    for dtype in (torch.float32, torch.float64):
        values = given(method, {"rate": number(0.1, dtype)})
        found = hypergradient(method, inner, number(1.0, dtype), range(4), lambda x: 3.0 * x.square(), values)["rate"]
        assert found.dtype == dtype
        expected = hypergradient(method, inner, number(1.0), range(4), lambda x: 3.0 * x.square(), given(method, {"rate": number(0.1)}))
        torch.testing.assert_close(found.double(), expected["rate"], rtol=1e-5, atol=1e-6)


def test_mixed_dtypes_come_back_as_they_went():
    found = hypergradient("discounted_forward", *mlp("sgd", 3, torch.float32), hyperparameters("sgd"))
    assert {value.dtype for value in found.values()} == {torch.float64}


@pytest.mark.parametrize("method", ["one_step", "discounted_forward", "unrolled"])
def test_results_that_are_not_finite_are_returned(method):
    problem, values = mlp("sgd", 3), hyperparameters("sgd")
    problem[1]["params"]["w1"][0, 0] = torch.nan
    assert all(not torch.isfinite(value) for value in hypergradient(method, *problem, values).values())


def most_alive(method, steps):
    """Return the largest number of tensors alive at the beginning of an inner step, and whether one that is carried had a graph."""
    inner, state, batches, outer, values = curved(steps)
    counts, graphs = [], []

    def counted(state, batch, hyper):
        counts.append(sum(type(thing) is torch.Tensor for thing in gc.get_objects()))
        graphs.append(any(leaf.requires_grad for leaf in state.values()))
        return inner(state, batch, hyper)

    gc.freeze()  # what was there before is not counted
    try:
        hypergradient(method, counted, state, batches, outer, given(method, values))
    finally:
        gc.unfreeze()
    return max(counts), any(graphs)


@pytest.mark.parametrize("method", [ForwardShared(2), DiscountedForward()], ids=str)
def test_the_memory_of_forward_methods_does_not_grow_with_the_run(method):
    most_alive(method, 2)  # what is loaded at the first call stays
    short, long = most_alive(method, 6), most_alive(method, 24)
    assert short == long
    assert not long[1]


def test_the_memory_of_reverse_does():
    """What the test above would show if states were kept."""
    most_alive(Unrolled(checkpoint_steps=1), 2)
    assert most_alive(Unrolled(checkpoint_steps=1), 24)[0] >= most_alive(Unrolled(checkpoint_steps=1), 6)[0] + 3 * 18


def counted_steps(method, steps=20):
    inner, state, batches, outer, values = curved(steps)
    calls = []

    def counted(state, batch, hyper):
        calls.append(1)
        return inner(state, batch, hyper)

    hypergradient(method, counted, state, batches, outer, given(method, values))
    return len(calls)


@pytest.mark.parametrize("method", [OneStep(), DiscountedForward(), Unrolled(), Unrolled(9), Unrolled(9, 9), Unrolled(None, 1)], ids=str)
def test_steps_are_run_as_often_as_the_cost_says(method):
    products = {OneStep(): 1, DiscountedForward(): 200}.get(method, getattr(method, "window", None) or 20)
    assert method.cost(20, 10) - 1 - 2 * products == counted_steps(method)


def test_the_inner_step_of_a_rule_is_the_platforms():
    inner, state, batches, _ = mlp("adamw", 3)
    values = hyperparameters("adamw")
    for batch in batches:
        grads = torch.func.grad(problems.mlp_loss)(state["params"], batch)
        expected = {
            name: apply_rule(inner.rule, values, param, grads[name], state["state"][name], state["t"], values["lr"])
            for name, param in state["params"].items()
        }
        state = inner(state, batch, values)
        for name, (param, accumulators) in expected.items():
            assert torch.equal(state["params"][name], param)
            assert all(torch.equal(state["state"][name][key], value) for key, value in accumulators.items())
    assert int(state["t"]) == 3


def test_runs_map_over_their_starts():
    """A hypergradient is itself a function that vmap takes, so that many runs are estimated at once."""
    inner, state, batches, outer, values = curved(4)
    starts = torch.stack([state["x"], 2 * state["x"]])

    def of(start):
        return hypergradient("unrolled", inner, {**state, "x": start}, batches, outer, values)["rate"]

    torch.testing.assert_close(vmap(of)(starts)[1], of(starts[1]), **TIGHT)


def test_implicit_is_the_limit_of_long_runs():
    """At a converged state the exact derivative of the whole run and that of its fixed point are the same."""

    def inner(x, batch, hyper):
        return x - 0.3 * torch.func.grad(lambda x: (hyper["pull"] * (x - 1) ** 2).sum() + torch.cosh(x).sum())(x)

    values, start = {"pull": torch.tensor([0.5, 1.0], dtype=torch.float64)}, torch.zeros(2, dtype=torch.float64)
    problem = (inner, start, range(80), lambda x: x.pow(3).sum(), values)
    exact = hypergradient("unrolled", *problem)
    for method in (Implicit(steps=80), Implicit("cg", steps=5)):
        assert_same(hypergradient(method, *problem), exact, rtol=1e-9, atol=1e-12)


def test_all_methods_are_registered():
    assert list(METHODS)[:5] == ["one_step", "discounted_forward", "unrolled", "forward_shared", "implicit"]


def test_short_windows_have_the_wrong_sign_where_noise_hides_a_slow_direction():
    """The example of the documentation: what differs between methods is their bias, not their arithmetic."""
    curvature, noise = torch.tensor([1.0, 0.02]), torch.randn(100, 256, 2, generator=torch.Generator().manual_seed(0))
    inner = gradient_step(lambda params, target: (curvature * (params["w"] - target) ** 2).sum() / 2, "momentum")
    state, values = inner.init({"w": torch.tensor([1.0, 5.0]).repeat(256, 1)}), {"lr": torch.tensor(0.05), "momentum": torch.tensor(0.5)}

    def of(method):
        return float(hypergradient(method, inner, state, noise, lambda end: inner.loss(end["params"], 0.0) / 256, values)["lr"])

    found = [of(method) for method in ("one_step", Unrolled(10), Unrolled(50), "unrolled")]
    assert found == pytest.approx([0.008, 0.324, -0.155, -0.818], abs=2e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ALL, ids=str)
def test_devices_agree(method):
    inner, state, batches, outer, values = curved(4)
    values = given(method, values)
    state_there, values_there = ({name: value.cuda() for name, value in tree.items()} for tree in (state, values))
    found = hypergradient(method, inner, state_there, batches.cuda(), outer, values_there)
    assert {value.device.type for value in found.values()} == {"cuda"}
    assert_same(
        {name: value.cpu() for name, value in found.items()},
        hypergradient(method, inner, state, batches, outer, values),
        rtol=1e-10,
        atol=1e-13,
    )
