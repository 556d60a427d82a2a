"""Learned rules: equal to an independent reference, working from their hand-set start, and sane when training ends."""

import math

import numpy as np
import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import ConfigError
from metaopt.learners.update_rules import apply_rule, get_rule
from metaopt.learners.update_rules.features import factored_axes, network, random_network, signal_path
from tests.learners.reference import Celo2Reference, LearnableAdamReference, MLPReference

SHAPES = [(), (1,), (7,), (3, 5), (5, 3), (4, 4), (1, 6), (2, 3, 4), (3, 4, 4), (3, 3, 3), (4, 3, 2, 2), (2, 2, 3, 3)]
LEARNED = [("mlp", {}), ("learnable_adam", {}), ("celo2_base", {"output": "graft"}), ("celo2_base", {"output": "rms"})]


def as_double(theta):
    return {name: value.double() for name, value in theta.items()}


def draws(*parts, shape, scale=1.0):
    return scale * seeds.normal(seeds.key("test", *parts), shape, torch.float64)


def reference(name, options, theta, shape):
    numbers = {key: value.numpy() for key, value in theta.items()}
    return {"mlp": MLPReference, "learnable_adam": LearnableAdamReference, "celo2_base": Celo2Reference}[name](
        numbers, shape, *options.values()
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "options"), LEARNED)
def test_rule_equals_reference(name: str, options: dict[str, str], shape: tuple[int, ...]) -> None:
    rule = get_rule(name, start="random", **options)
    theta = as_double(rule.init_theta(3))
    theta = {key: value + draws("theta", key, shape=value.shape, scale=0.1) for key, value in theta.items()}  # biases too
    expected = reference(name, options, theta, shape)
    param = draws("param", shape=shape)
    state = rule.init_state(param)
    assert all(value.dtype == torch.float64 for value in state.values())
    for t in range(20):
        grad = draws("grad", t, shape=shape, scale=10.0 ** (t % 5 - 3))
        step, state = rule.update(theta, param, grad, state, torch.tensor(t))
        want = expected.step(param.numpy(), grad.numpy())
        np.testing.assert_allclose(step.numpy(), want, rtol=1e-9, atol=1e-12)
        param = param - step


@pytest.mark.parametrize(("name", "options"), LEARNED)
def test_float32_agrees_with_float64(name: str, options: dict[str, str]) -> None:
    rule = get_rule(name, start="random", **options)
    theta = rule.init_theta(1)
    fine, coarse = [rule.init_state(torch.zeros(6, 4, dtype=dtype)) for dtype in (torch.float64, torch.float32)]
    for t in range(10):
        param, grad = draws("p", t, shape=(6, 4)), draws("g", t, shape=(6, 4))
        want, fine = rule.update(as_double(theta), param, grad, fine, torch.tensor(t))
        got, coarse = rule.update(theta, param.float(), grad.float(), coarse, torch.tensor(t))
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=2e-4, atol=1e-6 * float(want.abs().max()))


def test_sizes_are_the_published_ones() -> None:
    def count(theta, prefix=("w", "b")):
        return sum(value.numel() for name, value in theta.items() if name.startswith(prefix))

    assert count(get_rule("mlp").init_theta(0)) == 1762
    assert count(get_rule("celo2_base").init_theta(0)) == 347
    assert sum(value.numel() for value in get_rule("mlp").init_state(torch.zeros(10, 3)).values()) * 4 == 24 * 30
    assert len(get_rule("learnable_adam").init_theta(0)) == 4


def test_celo2_starts_as_adam_without_bias_correction() -> None:
    rms, graft = get_rule("celo2_base", start="adam", output="rms"), get_rule("celo2_base", start="adam", output="graft")
    theta = as_double(graft.init_theta(0))
    for shape in ((6, 4), (5,)):
        m = v = torch.zeros(shape, dtype=torch.float64)
        states = [rule.init_state(m) for rule in (rms, graft)]
        for t in range(10):
            grad, param = draws("g", t, shape=shape), draws("p", t, shape=shape)
            m, v = 0.9 * m + 0.1 * grad, 0.95 * v + 0.05 * grad**2
            adam = m / (v + 1e-8).sqrt()
            unit = adam / adam.square().mean().sqrt()
            steps = []
            for i, rule in enumerate((rms, graft)):
                step, states[i] = rule.update(theta, param, grad, states[i], torch.tensor(t))
                steps.append(step)
            torch.testing.assert_close(steps[0], graft.base_step * unit, rtol=1e-6, atol=1e-12)
            torch.testing.assert_close(steps[1], graft.base_step * adam, rtol=1e-6, atol=1e-12)


def test_mlp_starts_as_momentum_over_its_rms() -> None:
    rule = get_rule("mlp")
    theta = as_double(rule.init_theta(0))
    m = torch.zeros(6, 4, dtype=torch.float64)
    state = rule.init_state(m)
    for t in range(10):
        grad, param = draws("g", t, shape=(6, 4)), draws("p", t, shape=(6, 4))
        m = 0.9 * m + 0.1 * grad
        step, state = rule.update(theta, param, grad, state, torch.tensor(t))
        torch.testing.assert_close(step, 1e-3 * m / (m.square().mean() + 1e-5).sqrt(), rtol=1e-9, atol=1e-15)


def test_learnable_adam_starts_as_adam() -> None:
    learned, adam = get_rule("learnable_adam"), get_rule("adam")
    theta, param = as_double(learned.init_theta(0)), torch.zeros(5, dtype=torch.float64)
    one, two = learned.init_state(param), adam.init_state(param)
    for t in range(5):
        grad = draws("g", t, shape=(5,))
        got, one = learned.update(theta, param, grad, one, torch.tensor(t))
        want, two = adam.update({}, param, grad, two, torch.tensor(t))
        torch.testing.assert_close(got, 1e-3 * want, rtol=1e-5, atol=0)  # theta is float32


def test_random_starts_follow_their_seed() -> None:
    for name, _ in LEARNED[:3]:
        rule = get_rule(name, start="random")
        first, again, other = (rule.init_theta(seed) for seed in (1, 1, 2))
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert any(not torch.equal(first[key], other[key]) for key in first)
        assert first.keys() == get_rule(name, start="adam").init_theta(1).keys()


def test_random_network_is_scaled_and_bounded() -> None:
    theta = random_network((400, 100, 2), 0)
    assert float(theta["w0"].abs().max()) <= 2 / math.sqrt(400) * (1 + 1e-6)
    assert 0.85 / 20 < float(theta["w0"].std()) < 1 / 20  # clamping two-sided at 2 sd leaves 0.96 of it
    assert not theta["b0"].any()


@pytest.mark.parametrize("sizes", [(5, 4, 2), (5, 8, 6, 3), (5, 4, 4, 4, 1)])
def test_signal_path_carries_one_feature_exactly(sizes: tuple[int, ...]) -> None:
    theta = signal_path(random_network(sizes, 7), 3)
    features = draws("x", shape=(5, 11)).float()
    out = network(theta, features, torch.ones(5))
    assert torch.equal(out[0], features[3])
    assert not out[1:].any()


@pytest.mark.parametrize(("name", "options"), LEARNED)
@pytest.mark.parametrize("shape", [(3, 5), (6, 2), (2, 3, 4)])
def test_transposing_weight_and_gradient_transposes_the_step(name: str, options: dict[str, str], shape: tuple[int, ...]) -> None:
    rule = get_rule(name, start="random", **options)
    theta = as_double(rule.init_theta(5))
    turned = (1, 0, *range(2, len(shape)))
    states = [rule.init_state(torch.zeros(s, dtype=torch.float64)) for s in (shape, [shape[i] for i in turned])]
    for t in range(4):
        param, grad = draws("p", t, shape=shape), draws("g", t, shape=shape)
        one, states[0] = rule.update(theta, param, grad, states[0], torch.tensor(t))
        two, states[1] = rule.update(theta, param.permute(turned), grad.permute(turned), states[1], torch.tensor(t))
        torch.testing.assert_close(two, one.permute(turned), rtol=1e-9, atol=1e-15)


def test_ties_are_ordered_by_index() -> None:
    assert [factored_axes(torch.Size(s)) for s in ((4, 4), (3, 5), (5, 3), (3, 3, 3), (5, 5, 2), (2, 9, 9, 1))] == [
        (1, 0), (1, 0), (0, 1), (2, 1), (1, 0), (2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), LEARNED[:2])
def test_permuting_weights_permutes_elementwise_rules(name: str, options: dict[str, str]) -> None:
    rule = get_rule(name, start="random", **options)
    theta, order = as_double(rule.init_theta(5)), torch.tensor([3, 0, 4, 1, 2, 5])
    states = [rule.init_state(torch.zeros(6, dtype=torch.float64)) for _ in range(2)]
    for t in range(4):
        param, grad = draws("p", t, shape=(6,)), draws("g", t, shape=(6,))
        one, states[0] = rule.update(theta, param, grad, states[0], torch.tensor(t))
        two, states[1] = rule.update(theta, param[order], grad[order], states[1], torch.tensor(t))
        torch.testing.assert_close(two, one[order], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("output", ["graft", "rms"])
def test_rescaling_loss_leaves_celo2_unchanged(output: str) -> None:
    rule = get_rule("celo2_base", start="random", output=output)
    theta = as_double(rule.init_theta(5))
    states = [rule.init_state(torch.zeros(4, 6, dtype=torch.float64)) for _ in range(2)]
    for t in range(5):
        param, grad = draws("p", t, shape=(4, 6)), draws("g", t, shape=(4, 6), scale=10.0)
        one, states[0] = rule.update(theta, param, grad, states[0], torch.tensor(t))
        two, states[1] = rule.update(theta, param, 100.0 * grad, states[1], torch.tensor(t))
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-6)  # up to the epsilons


@pytest.mark.parametrize(("name", "options"), [*LEARNED, ("sgd", {}), ("adamw", {}), ("nadam", {}), ("rmsprop", {})])
@pytest.mark.parametrize("bad", [0.0, math.inf, -math.inf, math.nan])
def test_lr_zero_returns_the_same_bits(name: str, options: dict[str, str], bad: float) -> None:
    rule = get_rule(name, **options)
    param = torch.tensor([[1.5, -0.0, 1e-40], [3.0, math.inf, 7.0]])
    grad = torch.full((2, 3), bad)
    for lr in (0.0, torch.tensor(0.0)):
        got, _ = apply_rule(rule, rule.init_theta(0), param, grad, rule.init_state(param), torch.tensor(0), lr, weight_decay=0.1)
        assert torch.equal(got.view(torch.int32), param.view(torch.int32))


def test_decoupled_decay_is_in_units_of_the_step() -> None:
    rule, param, grad = get_rule("sgd"), draws("p", shape=(3,)), draws("g", shape=(3,))
    got, _ = apply_rule(rule, {}, param, grad, rule.init_state(param), torch.tensor(0), 0.1, weight_decay=0.5)
    torch.testing.assert_close(got, param - 0.1 * (grad + 0.5 * param), rtol=1e-15, atol=0)


def late_losses(output: str) -> torch.Tensor:
    """Normalised train losses [T, 2] of the hand-set start for 1,500 steps on noise-free bowls that it solves in far fewer."""
    family = tasks.get("quadratic")
    bowls = [family.build(family.sample("10x1-none", seed, (1500, 1500))) for seed in (0, 1)]
    learner = learners.get("celo2_base", start="adam", output=output)
    theta = {**learner.init_theta(0), "log_step": torch.full((2,), math.log(0.03))}
    return inner.run(learner, theta, bowls, [0, 1], 1500).normalised


def test_late_training_with_graft_stays_solved_and_rms_does_not_settle() -> None:
    graft, rms = late_losses("graft"), late_losses("rms")
    assert torch.isfinite(graft).all()
    solved, last = graft[900:1000].mean(0), graft[-100:].mean(0)
    assert (solved < 1e-2).all()
    assert (last <= 1.05 * solved + 1e-6).all()  # does not rise again
    # A direction of unit RMS keeps stepping when the gradient is gone: finite, but orders of magnitude above.
    assert torch.isfinite(rms).all()
    assert (rms[-100:].mean(0) > 10 * last).all()


def test_late_training_on_digits_with_graft() -> None:
    family = tasks.get("digits_mlp")
    task = family.build(family.sample("16-tanh-b32", 0, (1000, 1000)))
    learner = learners.get("celo2_base", start="adam", output="graft")
    theta = {**learner.init_theta(0), "log_step": torch.full((2,), math.log(0.01))}
    losses = inner.run(learner, theta, [task], [0], 1000).normalised[:, 0]
    assert torch.isfinite(losses).all()
    assert float(losses[-100:].mean()) < 0.02
    assert float(losses[-100:].mean()) < 1.5 * float(losses[600:700].mean()) + 1e-3


def test_unknown_rules_and_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"update rule 'celo2_bas' is unknown; did you mean 'celo2_base'\?"):
        get_rule("celo2_bas")
    with pytest.raises(ConfigError, match=r"rule adam has no option 'betta1'; did you mean 'beta1'\?"):
        get_rule("adam", betta1=0.5)
    with pytest.raises(ConfigError, match=r"update rule mlp has no option 'widths'; known: start, hidden"):
        get_rule("mlp", widths=(1,))
