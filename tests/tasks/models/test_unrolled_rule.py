"""The small rule of learned-optimizer tasks: its unroll step by step, its derivative, and rules it contains."""

import math

import pytest
import torch
from torch.func import grad, vmap

from metaopt import seeds
from metaopt.tasks.models.unrolled_rule import UnrolledRule

P, D, K = 3, 4, 6


def filled(rule: UnrolledRule):
    params = rule.init(seeds.key("rule"), torch.tensor(1.0, dtype=torch.float64))
    return {name: value + 0.2 * seeds.normal(seeds.key(name), value.shape, torch.float64) for name, value in params.items()}


START = seeds.normal(seeds.key("start"), (P, D), torch.float64)
CURVATURE = torch.tensor([0.3, 1.0, 2.0, 5.0], dtype=torch.float64)


def slope(x: torch.Tensor) -> torch.Tensor:
    return CURVATURE * x


def constant_rule(direction: float, log_magnitude: float):
    """Return weights of a rule that ignores what it sees."""
    params = {name: torch.zeros_like(value) for name, value in filled(UnrolledRule(5, "tanh")).items()}
    return {**params, "layer1.bias": torch.tensor([direction, log_magnitude], dtype=torch.float64)}


def test_the_unroll_is_its_formula_written_out() -> None:
    rule = UnrolledRule(5, "tanh")
    params = filled(rule)
    visited = rule.apply(params, slope, START, K)
    assert len(visited) == K
    for p in range(P):
        for d in range(D):
            x, fast, slow, squares = float(START[p, d]), 0.0, 0.0, 0.0
            for k in range(K):
                g = float(CURVATURE[d]) * x
                fast, slow, squares = 0.5 * fast + 0.5 * g, 0.9 * slow + 0.1 * g, 0.9 * squares + 0.1 * g * g
                means = fast / (1 - 0.5 ** (k + 1)), slow / (1 - 0.9 ** (k + 1))
                root = math.sqrt(squares / (1 - 0.9 ** (k + 1)) + 1e-8)
                seen = [math.asinh(g), math.asinh(100 * g) / math.asinh(100), math.asinh(means[1])]
                seen += [g / root, means[0] / root, means[1] / root, k / K]
                hidden = torch.tanh(params["layer0.weight"] @ torch.tensor(seen, dtype=torch.float64) + params["layer0.bias"])
                direction, magnitude = (params["layer1.weight"] @ hidden + params["layer1.bias"]).tolist()
                x -= 0.1 * direction * math.exp(magnitude)
                assert float(visited[k][p, d]) == pytest.approx(x, rel=1e-9, abs=1e-12)


def test_outputs_mean_direction_and_log_magnitude() -> None:
    rule = UnrolledRule(5, "tanh")
    steps = rule.apply(constant_rule(2.0, math.log(3.0)), slope, START, 4)
    for k, x in enumerate(steps):
        torch.testing.assert_close(x, START - 0.1 * 2.0 * 3.0 * (k + 1))
    assert torch.equal(rule.apply(constant_rule(0.0, 1.0), slope, START, 4)[-1], START)


@pytest.mark.parametrize("activation", ["tanh", "silu"])
def test_derivatives_through_the_unroll_equal_finite_differences(activation: str) -> None:
    rule = UnrolledRule(4, activation)
    params = filled(rule)

    def final(p):
        return (CURVATURE * rule.apply(p, slope, START, K)[-1].square()).sum()

    grads, h = grad(final)(params), 1e-6
    for name, value in params.items():
        for i in range(value.numel()):
            bump = torch.zeros(value.numel(), dtype=torch.float64)
            bump[i] = h
            up, down = (final({**params, name: value + sign * bump.reshape(value.shape)}) for sign in (1, -1))
            assert float(grads[name].reshape(-1)[i]) == pytest.approx(float(up - down) / (2 * h), rel=1e-5, abs=1e-7)


def test_a_fresh_rule_hardly_moves() -> None:
    rule = UnrolledRule(16, "relu")
    moved = [
        (rule.apply(rule.init(seeds.key(i), torch.tensor(1.0, dtype=torch.float64)), slope, START, 10)[-1] - START).abs().mean()
        for i in range(10)
    ]
    assert float(torch.stack(moved).mean()) < 0.15


def test_the_order_of_variables_does_not_matter() -> None:
    rule, turned = UnrolledRule(5, "relu"), torch.tensor([2, 0, 3, 1])
    params = filled(rule)
    one = rule.apply(params, slope, START, K)[-1]
    two = rule.apply(params, lambda x: CURVATURE[turned] * x, START[:, turned], K)[-1]
    torch.testing.assert_close(two, one[:, turned], rtol=1e-12, atol=1e-12)


def test_particles_get_what_each_gets_alone() -> None:
    rule = UnrolledRule(5, "silu")
    params = vmap(rule.init)(torch.arange(3), torch.ones(3, dtype=torch.float64))
    together = vmap(lambda p: rule.apply(p, slope, START, K)[-1])(params)
    for i in range(3):
        alone = rule.apply({k: v[i] for k, v in params.items()}, slope, START, K)[-1]
        torch.testing.assert_close(together[i], alone, rtol=1e-12, atol=1e-12)
