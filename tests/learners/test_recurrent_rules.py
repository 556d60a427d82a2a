"""RNN-MLP and the hierarchical RNN: what they are invariant to, their parts, and what they are before training."""

import math

import pytest
import torch
from torch import Tensor

from metaopt import seeds
from metaopt.learners.update_rules import ModelRule, get_model_rule
from metaopt.learners.update_rules.hierarchical_rnn import gru_cell

SHAPES = {"m": (4, 3), "v": (5,), "s": ()}
CLIP_AT_FIRST = 10.0


def draw(*parts: object, shape: tuple[int, ...] = ()) -> Tensor:
    return seeds.normal(seeds.key("test", *parts), shape, torch.float64)


def theta_of(rule: ModelRule) -> dict[str, Tensor]:
    return {name: value.double() for name, value in rule.init_theta(3).items()}


def run(rule: ModelRule, theta: dict[str, Tensor], steps: int = 4, grad_scale: float = 1.0, loss_scale: float = 1.0, shift: float = 0.0):
    """Return (directions of the last step, state)."""
    params = {name: draw("p", name, shape=shape) for name, shape in SHAPES.items()}
    state, found = rule.init_state(theta, params), {}
    for t in range(steps):
        grads = {name: grad_scale * draw("g", name, t, shape=shape) for name, shape in SHAPES.items()}
        loss = loss_scale * torch.tensor(2.0 / (t + 1)).double() + shift
        found, state = rule.update(theta, params, grads, state, torch.tensor(t), loss, None)
    return found, state


def rms_adam(name: str, eps: float) -> Tensor:
    """Momentum 0.9 over the root of the second moment of the same decay, at unit RMS, after four steps."""
    m = v = torch.zeros(SHAPES[name], dtype=torch.float64)
    for t in range(4):
        grad = draw("g", name, t, shape=SHAPES[name])
        m, v = 0.9 * m + 0.1 * grad, 0.9 * v + 0.1 * grad**2
    adam = m / torch.sqrt(v + 1e-6)
    return adam / torch.sqrt((adam**2).mean() + eps)


def test_an_untrained_rnn_mlp_is_momentum_over_the_root_second_moment() -> None:
    rule = get_model_rule("rnn_mlp")
    found, _ = run(rule, theta_of(rule))
    for name in SHAPES:
        torch.testing.assert_close(found[name], 1e-3 * rms_adam(name, 1e-5), rtol=1e-9, atol=0)


def test_losses_in_other_units_are_the_same_losses() -> None:
    rule = get_model_rule("rnn_mlp", start="random", lstm_hidden=8)
    theta = theta_of(rule)
    plain, scaled, shifted = (run(rule, theta, **options)[0]["m"] for options in ({}, {"loss_scale": 1e3}, {"shift": 5.0}))
    torch.testing.assert_close(scaled, plain, rtol=1e-4, atol=0)  # 1e-8 beside the variance
    assert (shifted - plain).abs().max() > 1e-3 * plain.abs().max()  # where 0 lies is told: the place of a validation loss


def test_gradients_are_clipped_at_ten_times_their_running_size() -> None:
    rule = get_model_rule("rnn_mlp", lstm_hidden=8)
    theta = theta_of(rule)
    params = {name: draw("p", name, shape=shape) for name, shape in SHAPES.items()}
    state, running, weight = rule.init_state(theta, params), 0.01, 0.01
    for t, size in enumerate((1e6, 1e6, 1.0, 1e9)):
        grads = {name: torch.full_like(p, size) for name, p in params.items()}
        _, after = rule.update(theta, params, grads, state, torch.tensor(t), torch.ones(()).double(), None)
        limit = 10 * running / weight
        entry = min(size, limit)
        assert limit == pytest.approx(CLIP_AT_FIRST) if t == 0 else limit > CLIP_AT_FIRST
        for name in params:
            moved = after["tensors"][name]["m"][0] - 0.5 * state["tensors"][name]["m"][0]
            torch.testing.assert_close(moved, torch.full_like(moved, 0.5 * entry), rtol=1e-9, atol=0)
        running, weight = 0.99 * running + 0.01 * math.sqrt(1e-8 + entry**2), 0.99 * weight + 0.01
        state = after


def test_messages_pass_between_tensors_and_levels() -> None:
    """A gradient of one tensor reaches the step of another after one step, through the mean of all LSTMs."""
    rule = get_model_rule("rnn_mlp", start="random", lstm_hidden=8)
    theta = theta_of(rule)
    params = {name: draw("p", name, shape=shape) for name, shape in SHAPES.items()}
    found = []
    for size in (1.0, 0.2):
        state = rule.init_state(theta, params)
        for t in range(2):
            grads = {name: (size if name == "v" else 1.0) * torch.ones_like(p) for name, p in params.items()}
            steps, state = rule.update(theta, params, grads, state, torch.tensor(t), torch.ones(()).double(), None)
            found.append(steps["m"])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[1], found[3])


def test_an_untrained_hierarchy_is_squashed_momentum() -> None:
    """The first step: all decays are 0, every momentum is the gradient, over its own size: its sign, times asinh(1)."""
    rule = get_model_rule("hierarchical_rnn", rate=2e-3)
    theta = theta_of(rule)
    found, state = run(rule, theta, 1)
    for name, shape in SHAPES.items():
        grad = draw("g", name, 0, shape=shape)
        torch.testing.assert_close(found[name], 2e-3 * torch.sign(grad), rtol=1e-6, atol=0)
        torch.testing.assert_close(state["tensors"][name]["m"][3], grad, rtol=1e-12, atol=0)
    assert float(torch.exp(theta["initial_log_rate"] + theta["rate_offset"])) == pytest.approx(2e-3, rel=1e-6)


def test_the_hierarchy_does_not_see_the_scale_of_the_loss() -> None:
    rule = get_model_rule("hierarchical_rnn", start="random")
    theta = theta_of(rule)
    plain, scaled = run(rule, theta)[0], run(rule, theta, grad_scale=1e3)[0]
    for name in SHAPES:
        torch.testing.assert_close(scaled[name], plain[name], rtol=1e-4, atol=1e-9)


def test_rates_follow_their_readout_with_momentum() -> None:
    rule = get_model_rule("hierarchical_rnn")
    theta = theta_of(rule)
    faster = {**theta, "rate_bias": torch.full((1,), 0.5, dtype=torch.float64)}
    (plain, _), (quick, state) = run(rule, theta, 1), run(rule, faster, 1)
    torch.testing.assert_close(quick["m"], math.exp(0.5) * plain["m"], rtol=1e-12, atol=0)
    kept = 1 / (1 + math.exp(-3.2))
    expected = theta["initial_log_rate"] + (1 - kept) * 0.5
    torch.testing.assert_close(state["tensors"]["m"]["log_rate"], expected.expand(4, 3), rtol=1e-7, atol=0)
    far = {**theta, "rate_bias": torch.full((1,), 1e4, dtype=torch.float64)}
    assert all(torch.isfinite(step).all() for step in run(rule, far, 3)[0].values())


def test_gates_of_the_recurrent_cell() -> None:
    x, h = draw("x", shape=(2, 3)), draw("h", shape=(2, 4))
    gates = draw("wg", shape=(8, 7)), draw("bg", shape=(8,))
    candidate = draw("wc", shape=(4, 7)), draw("bc", shape=(4,))
    zero = torch.zeros(12, dtype=torch.float64)

    def with_bias(**parts: float) -> Tensor:
        bias = torch.cat([torch.full((4,), parts.get(name, 0.0), dtype=torch.float64) for name in ("reset", "keep", "new")])
        return gru_cell(x, h, gates, candidate, bias)

    torch.testing.assert_close(with_bias(keep=1e3), h, rtol=0, atol=0)
    without = torch.cat([x, torch.zeros_like(h)], -1)
    forgetful = with_bias(keep=-1e3, reset=-1e3)
    torch.testing.assert_close(forgetful, torch.tanh(without @ candidate[0].T + candidate[1]), rtol=1e-12, atol=0)
    full = torch.cat([x, h], -1)
    torch.testing.assert_close(with_bias(keep=-1e3, reset=1e3), torch.tanh(full @ candidate[0].T + candidate[1]), rtol=1e-12, atol=0)
    rows = torch.stack([gru_cell(x[i], h[i], gates, candidate, zero) for i in range(2)])
    torch.testing.assert_close(gru_cell(x, h, gates, candidate, zero), rows, rtol=1e-12, atol=1e-15)
