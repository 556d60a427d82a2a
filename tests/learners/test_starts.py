"""What every learned rule is before training, when `start` is "adam": one table, with the tolerance to which it holds."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from metaopt import seeds
from metaopt.learners.update_rules import CLASSIC, RULES, get_rule
from tests.learners.reference import AdamReference, quintic

SHAPES = [(), (5,), (6, 4), (4, 6), (2, 3, 4)]


class Plain:
    """Exponential averages without bias correction, and what the starts make of them."""

    def __init__(self, shape, b1s, b2, eps):
        self.b1s, self.b2, self.eps = b1s, b2, eps
        self.ms, self.v = [np.zeros(shape) for _ in b1s], np.zeros(shape)

    def update(self, grad):
        self.ms = [b * m + (1 - b) * grad for b, m in zip(self.b1s, self.ms, strict=True)]
        self.v = self.b2 * self.v + (1 - self.b2) * grad**2
        return [m / np.sqrt(self.v + self.eps) for m in self.ms]


def unit(direction, eps):
    return direction / np.sqrt(np.mean(direction**2) + eps)


Steps = Iterator[np.ndarray]
Gradients = list[tuple[np.ndarray, np.ndarray]]


def momentum_over_rms(shape, run: Gradients) -> Steps:
    m = np.zeros(shape)
    for _, grad in run:
        m = 0.9 * m + 0.1 * grad
        yield 1e-3 * unit(m, 1e-5)


def adam(lr: float, b2: float = 0.999, b1: float = 0.9) -> Callable[..., Steps]:
    def steps(shape, run: Gradients) -> Steps:
        rule = AdamReference(b1, b2, 1e-8, shape)
        for param, grad in run:
            yield lr * rule.step(param, grad)

    return steps


def plain_adam(lr: float, b2: float, eps: float, rms_eps: float | None) -> Callable[..., Steps]:
    """Adam without bias correction, over its own RMS if `rms_eps` is given."""

    def steps(shape, run: Gradients) -> Steps:
        rule = Plain(shape, (0.9,), b2, eps)
        for _, grad in run:
            (direction,) = rule.update(grad)
            yield lr * (direction if rms_eps is None else unit(direction, rms_eps))

    return steps


def orthogonalised_adam(shape, run: Gradients) -> Steps:
    """Adam without bias correction, its singular values through the polynomial, at unit RMS; vectors: Adam at 20 times the rate."""
    if len(shape) < 2:
        yield from adam(0.02, 0.95)(shape, run)
        return
    rule = Plain(shape, (0.9,), 0.95, 1e-8)
    for _, grad in run:
        yield 1e-3 * unit(quintic(rule.update(grad)[0].reshape(shape[0], -1)), 1e-9).reshape(shape)


def aggregated_adamw(shape, run: Gradients) -> Steps:
    """The mean of Adam's directions over three momenta, and AdamW's decay at its defaults."""
    rule = Plain(shape, (0.9, 0.99, 0.999), 0.999, 1e-6)
    for param, grad in run:
        yield 1e-3 * sum(rule.update(grad)) / 3 + 1e-5 * param


# rule, options, what it is, relative tolerance in float64 (theta is made in float32, hence not always 1e-15).
STARTS = [
    ("mlp", {}, momentum_over_rms, 1e-9),
    ("learnable_adam", {}, adam(1e-3), 1e-5),
    ("celo2_base", {"output": "graft"}, plain_adam(1e-2, 0.95, 1e-8, None), 1e-6),
    ("celo2_base", {"output": "rms"}, plain_adam(1e-2, 0.95, 1e-8, 1e-9), 1e-6),
    ("small_fc", {}, plain_adam(1e-3, 0.999, 1e-6, 1e-5), 1e-9),
    ("small_fc", {"hidden": (32, 32), "step_mult": 0.01, "learn_decays": False}, plain_adam(1e-2, 0.999, 1e-6, 1e-5), 1e-9),
    ("celo2", {}, orthogonalised_adam, 1e-6),
    ("nn_adam", {}, adam(1e-3), 1e-5),
    ("star", {}, aggregated_adamw, 1e-9),
    ("lstm", {}, adam(0.01, 0.95, 0.95), 1e-6),
]


def test_the_table_has_every_learned_rule() -> None:
    assert {name for name, *_ in STARTS} == {
        name for name in RULES if name not in CLASSIC and RULES[name].__module__.startswith("metaopt.")
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "options", "start", "tolerance"), STARTS, ids=[f"{name}-{options}" for name, options, *_ in STARTS])
def test_a_hand_set_start_is_what_it_says(name, options, start, tolerance: float, shape: tuple[int, ...]) -> None:
    rule = get_rule(name, start="adam", **options)
    theta = {key: value.double() for key, value in rule.init_theta(0).items()}
    draws = [[seeds.normal(seeds.key("start", kind, t), shape, torch.float64) for kind in ("p", "g")] for t in range(10)]
    state = rule.init_state(draws[0][0])
    for t, want in enumerate(start(shape, [(param.numpy(), grad.numpy()) for param, grad in draws])):
        step, state = rule.update(theta, *draws[t], state, torch.tensor(t))
        error = np.max(np.abs(step.numpy() - want)) / np.max(np.abs(want))
        assert error <= tolerance, f"step {t}: {error:.1e}"
