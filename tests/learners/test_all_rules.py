"""One table, the same tests: every bundled rule is compared with a reference of its own, and with what it claims to be invariant to.

Contracts over all rules are elsewhere: `tests/testing` (update rules, optimizers), `tests/optim` (the drop-in retraces inner runs).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from metaopt import seeds
from metaopt.learners.update_rules import CLASSIC, RULES, UpdateRule, apply_rule, fresh_state, get_rule
from metaopt.optim import LearnedOptimizer
from tests.learners import reference

# Ranks 0 to 4, square and tied sizes, axes of one.
SHAPES = [(), (1,), (7,), (3, 5), (5, 3), (4, 4), (1, 6), (2, 3, 4), (3, 4, 4), (3, 3, 3), (4, 3, 2, 2), (2, 2, 3, 3)]
STEPS = 20
# torch keeps the product of NAdam's momenta in float32.
TORCH: dict[str, tuple[Callable[..., torch.optim.Optimizer], float]] = {
    "sgd": (torch.optim.SGD, 1e-9),
    "momentum": (partial(torch.optim.SGD, momentum=0.9), 1e-9),
    "nesterov": (partial(torch.optim.SGD, momentum=0.9, nesterov=True), 1e-9),
    "adam": (torch.optim.Adam, 1e-9),
    "adamw": (torch.optim.AdamW, 1e-9),
    "nadam": (torch.optim.NAdam, 1e-6),
    "rmsprop": (torch.optim.RMSprop, 1e-9),
    "radam": (torch.optim.RAdam, 1e-9),
    "adafactor": (torch.optim.Adafactor, 1e-9),
}
MATRICES = ((3, 5), (6, 2), (4, 4))
# Rows and columns are told apart by size, equal sizes by position: factored rules turn with a tensor only where its sizes differ.
UNTIED = ((3, 5), (6, 2), (2, 3, 4))


@dataclass(frozen=True)
class Case:
    """A rule with options, its reference, and what it claims.

    Attributes:
        reference: (theta, shape, options) -> object with `step(param, grad)`.
        scale_free: multiplying the loss leaves the step as it is where epsilons do not matter.
        transposes: turning the first two axes of weight and gradient turns the step; `turned` lists the shapes for which it does.
        tolerance: relative, of the reference over 20 steps in float64.
    """

    rule: str
    reference: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    scale_free: bool = False
    turned: tuple[tuple[int, ...], ...] = (*MATRICES, (2, 3, 4))
    tolerance: float = 1e-9

    def __str__(self) -> str:
        return "-".join([self.rule, *(f"{key}={value}" for key, value in self.options.items())])

    def make(self, start: str = "random") -> UpdateRule:
        return get_rule(self.rule, **self.options, **({} if self.rule in CLASSIC else {"start": start}))


def classic(name: str) -> Case:
    make, tolerance = TORCH[name]
    scale_free = name not in ("sgd", "momentum", "nesterov", "radam")  # RAdam begins as momentum
    turned = MATRICES if name == "adafactor" else (*MATRICES, (2, 3, 4))
    lr = 1e-2 if name == "adafactor" else 1.0  # Adafactor's direction depends on its rate
    return Case(name, lambda _, shape, __: reference.TorchReference(make, shape, lr), {}, scale_free, turned, tolerance)


CASES = [
    *(classic(name) for name in TORCH),
    Case("muon", reference.MuonReference, {}, True, MATRICES),
    Case("lion", reference.LionReference, {}, True),
    Case("mlp", reference.MLPReference),
    Case("learnable_adam", reference.LearnableAdamReference, scale_free=True),
    Case("celo2_base", reference.Celo2BaseReference, {"output": "graft"}, True, UNTIED),
    Case("celo2_base", reference.Celo2BaseReference, {"output": "rms"}, True, UNTIED),
    Case("celo2", reference.Celo2Reference, {"output": "rms"}, True, MATRICES[:2]),
    Case("celo2", reference.Celo2Reference, {"output": "graft"}, True, MATRICES[:2]),
    Case("small_fc", reference.SmallFCReference, {}, False, UNTIED),
    Case("small_fc", reference.SmallFCReference, {"hidden": (8, 6), "step_mult": 0.01, "learn_decays": False}, False, UNTIED),
    Case("small_fc", reference.SmallFCReference, {"norm_eps": 1e-12}, True, UNTIED),
    Case("nn_adam", reference.NNAdamReference, {"hidden": 5}),
    Case("star", reference.StarReference, {}, False, UNTIED),
    Case("star", reference.StarReference, {"decay": 0.1, "learn_decays": False}, False, UNTIED),
    Case("lstm", reference.LSTMReference, {"hidden": 5}, True),
]
LEARNED = [case for case in CASES if case.rule not in CLASSIC]
all_cases = pytest.mark.parametrize("case", CASES, ids=str)
learned_cases = pytest.mark.parametrize("case", LEARNED, ids=str)


def draws(*parts: object, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    return scale * seeds.normal(seeds.key("test", *parts), shape, torch.float64)


def weights(rule: UpdateRule) -> dict[str, Tensor]:
    """Meta-parameters in float64, away from every zero of an initialisation; offsets of decays stay where decays are in (0, 1)."""
    theta = {key: value.double() for key, value in rule.init_theta(3).items()}
    return {key: value + draws("theta", key, shape=value.shape, scale=0.01 if "offset" in key else 0.1) for key, value in theta.items()}


def walk(rule: UpdateRule, shape: tuple[int, ...], change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], steps: int) -> list[Tensor]:
    """The directions for the same weights and gradients, changed by a function."""
    theta, found = weights(rule), []
    state = rule.init_state(change(draws("p", shape=shape), draws("p", shape=shape))[0])
    for t in range(steps):
        param, grad = change(draws("p", t, shape=shape), draws("g", t, shape=shape))
        direction, state = rule.update(theta, param, grad, state, torch.tensor(t))
        found.append(direction)
    return found


def test_the_table_has_every_bundled_rule() -> None:
    assert {case.rule for case in CASES} == {name for name in RULES if RULES[name].__module__.startswith("metaopt.")}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@all_cases
def test_it_equals_its_reference(case: Case, shape: tuple[int, ...]) -> None:
    rule = case.make()
    theta = weights(rule)
    expected = case.reference({key: value.numpy() for key, value in theta.items()}, shape, case.options)
    param = draws("param", shape=shape)
    state = rule.init_state(param)
    assert all(value.dtype == torch.float64 for value in state.values())
    for t in range(STEPS):
        grad = draws("grad", t, shape=shape, scale=10.0 ** (t % 5 - 3))
        step, state = rule.update(theta, param, grad, state, torch.tensor(t))
        want = expected.step(param.numpy(), grad.numpy())
        error = np.max(np.abs(step.numpy() - want)) / np.max(np.abs(want))
        assert error <= case.tolerance, f"step {t}: {error:.1e}"
        param = param - 0.1 * step


@all_cases
def test_float32_agrees_with_float64(case: Case) -> None:
    rule, shape = case.make(), (6, 4)
    theta = rule.init_theta(1)
    fine, coarse = (rule.init_state(torch.zeros(shape, dtype=dtype)) for dtype in (torch.float64, torch.float32))
    for t in range(10):
        param, grad = draws("p", t, shape=shape), draws("g", t, shape=shape)
        want, fine = rule.update({key: value.double() for key, value in theta.items()}, param, grad, fine, torch.tensor(t))
        got, coarse = rule.update(theta, param.float(), grad.float(), coarse, torch.tensor(t))
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=3e-4, atol=1e-5 * float(want.abs().max()))


@all_cases
def test_permuting_the_weights_of_a_vector_permutes_the_step(case: Case) -> None:
    order, rule = torch.tensor([3, 0, 4, 1, 2, 5]), case.make()
    plain = walk(rule, (6,), lambda p, g: (p, g), 4)
    permuted = walk(rule, (6,), lambda p, g: (p[order], g[order]), 4)
    for one, two in zip(plain, permuted, strict=True):
        torch.testing.assert_close(two, one[order], rtol=1e-9, atol=1e-12)


@all_cases
def test_transposing_weight_and_gradient_transposes_the_step_where_claimed(case: Case) -> None:
    rule = case.make()
    for shape in case.turned:
        turned = (1, 0, *range(2, len(shape)))
        plain = walk(rule, shape, lambda p, g: (p, g), 4)
        other = walk(rule, shape, lambda p, g, to=turned: (p.permute(to), g.permute(to)), 4)
        for one, two in zip(plain, other, strict=True):
            torch.testing.assert_close(two, one.permute(turned), rtol=1e-8, atol=1e-10 * float(one.abs().max()))


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=str)
@pytest.mark.parametrize("case", [case for case in CASES if case.scale_free], ids=str)
def test_rescaling_the_loss_leaves_the_step_unchanged_where_claimed(case: Case, shape: tuple[int, ...]) -> None:
    rule = case.make()
    # No gradient is near zero, so that neither epsilons beside its square nor those beside the inverse of it show.
    one, two = (walk(rule, shape, lambda p, g, by=by: (p, by * (g + torch.sign(g))), 5) for by in (10.0, 100.0))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


@pytest.mark.parametrize("case", [case for case in CASES if not case.scale_free], ids=str)
def test_rules_that_do_not_claim_it_do_depend_on_the_scale_of_the_loss(case: Case) -> None:
    one, two = (walk(case.make(), (4, 6), lambda p, g, by=by: (p, by * g), 5)[-1] for by in (1.0, 100.0))
    assert float((one - two).abs().max() / one.abs().max()) > 1e-3


@all_cases
def test_the_order_of_tensors_does_not_matter(case: Case) -> None:
    shapes = [(3, 5), (4,), (3, 5), (4, 4), (4,)]
    starts = [draws("p", i, shape=shape) for i, shape in enumerate(shapes)]
    ends = []
    for order in (range(5), (4, 2, 0, 3, 1)):
        params = {i: nn.Parameter(starts[i].clone()) for i in order}
        optimizer = LearnedOptimizer(params.values(), case.make())
        for t in range(3):
            for i, param in params.items():
                param.grad = draws("g", t, i, shape=shapes[i])
            optimizer.step()
        ends.append([params[i].detach() for i in range(5)])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@learned_cases
def test_random_starts_follow_their_seed_and_have_the_layout_of_the_hand_set_one(case: Case) -> None:
    first, again, other = (case.make().init_theta(seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    hand_set = case.make("adam").init_theta(1)
    assert {key: value.shape for key, value in first.items()} == {key: value.shape for key, value in hand_set.items()}


@all_cases
def test_particles_and_tensors_may_both_be_stacked(case: Case) -> None:
    """Two particles, each with a theta of its own, with three tensors of one shape: `vmap` over `vmap`."""
    rule, shape = case.make(), (3, 4)
    theta = {key: torch.stack([value, 1.01 * value]) for key, value in weights(rule).items()}
    params, grads = draws("p", shape=(2, 3, *shape)), draws("g", shape=(2, 3, *shape))

    def one(theta: dict[str, Tensor], param: Tensor, grad: Tensor) -> Tensor:
        state, t = fresh_state(rule, param), torch.tensor(0)
        for _ in range(2):
            param, state = apply_rule(rule, theta, param, grad, state, t, 0.1)
            t = t + 1
        return param

    inside = vmap(one, in_dims=(None, 0, 0))
    together = vmap(inside)(theta, params, grads) if theta else vmap(lambda p, g: inside({}, p, g))(params, grads)
    for i in range(2):
        for j in range(3):
            alone = one({key: value[i] for key, value in theta.items()}, params[i, j], grads[i, j])
            torch.testing.assert_close(together[i, j], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
@all_cases
def test_the_second_step_does_not_recompile(case: Case) -> None:
    rule = case.make()
    theta = rule.init_theta(0)
    torch._dynamo.reset()

    def step(param: Tensor, grad: Tensor, state: dict[str, Tensor], t: Tensor, lr: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return apply_rule(rule, theta, param, grad, state, t, lr, 0.1)

    compiled = torch.compile(vmap(step), backend="eager", fullgraph=True, dynamic=False)
    for shape in ((3, 5), (4,)):
        params = draws("p", shape=(2, *shape)).float()
        state = vmap(rule.init_state)(params)
        for t in range(3):
            rest = (draws("g", t, shape=(2, *shape)).float(), state, torch.full((2,), t), torch.full((2,), 1.0 / (t + 1)))
            with torch._dynamo.config.patch(error_on_recompile=t > 0):
                after, new_state = compiled(params, *rest)
            want, state = vmap(step)(params, *rest)
            torch.testing.assert_close(after, want, rtol=1e-5, atol=1e-7)
            assert new_state.keys() == state.keys()
            params = want
