"""Base steps in closed form: every derivative against central differences of the step itself, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from metaopt.optim.hypergradient_steps import BASE_STEPS, BaseStep

RATE, SHAPES = 0.05, ((3, 4), (5,), ())
HYPERS: dict[str, dict[str, float]] = {
    "sgd": {"weight_decay": 0.1, "momentum": 0.0, "nesterov": 0.0},
    "momentum": {"weight_decay": 0.1, "momentum": 0.8, "nesterov": 0.0},
    "nesterov": {"weight_decay": 0.1, "momentum": 0.8, "nesterov": 1.0},
    "adam": {"weight_decay": 0.1, "beta1": 0.85, "beta2": 0.97, "eps": 1e-2},
    "adamw": {"weight_decay": 0.1, "beta1": 0.85, "beta2": 0.97, "eps": 1e-2},
    "rmsprop": {"weight_decay": 0.1, "alpha": 0.9, "eps": 1e-2, "momentum": 0.0},
    "rmsprop_momentum": {"weight_decay": 0.1, "alpha": 0.9, "eps": 1e-2, "momentum": 0.7},
    "lion": {"weight_decay": 0.1, "beta1": 0.9, "beta2": 0.97},
}
SMOOTH = {name: [key for key in h if key != "nesterov" and not (name == "lion" and key.startswith("beta"))] for name, h in HYPERS.items()}
SMOOTH |= {"sgd": ["weight_decay"], "rmsprop": ["weight_decay", "alpha", "eps"]}


def tensors(seed: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=source, dtype=torch.float64) for shape in SHAPES]


def base_of(name: str) -> BaseStep:
    return BASE_STEPS[{"momentum": "sgd", "nesterov": "sgd", "rmsprop_momentum": "rmsprop"}.get(name, name)]


def start(name: str, t: int) -> dict[str, list[Tensor]]:
    keys = [*base_of(name).accumulators, *(["momentum_buffer"] if HYPERS[name].get("momentum") else [])]
    size = float(t > 1)  # accumulators begin at 0
    return {key: [size * (value.square() if "sq" in key else value) for value in tensors(i + 10)] for i, key in enumerate(keys)}


def taken(name: str, h: dict[str, float], t: int, out: dict[str, list[Tensor]], rate: float = RATE) -> tuple[list[Tensor], dict[str, Any]]:
    params, state = tensors(1), start(name, t)
    base_of(name).step(h, rate, t, params, tensors(2), state, out)
    return params, state


CASES = [(name, key, t) for name, keys in SMOOTH.items() for key in keys for t in (1, 2, 7)]


@pytest.mark.parametrize(("name", "key", "t"), CASES)
def test_derivatives_equal_central_differences(name: str, key: str, t: int) -> None:
    h, eps = HYPERS[name], 1e-6
    out = {key: tensors(3)}
    taken(name, h, t, out)
    above, below = (taken(name, {**h, key: h[key] + sign * eps}, t, {})[0] for sign in (1, -1))
    for a, b, derivative in zip(above, below, out[key], strict=True):
        torch.testing.assert_close(-RATE * derivative, (a - b) / (2 * eps), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", HYPERS)
def test_the_direction_is_what_the_rate_multiplies(name: str) -> None:
    out, eps = {"lr": tensors(3)}, 1e-6
    taken(name, HYPERS[name], 3, out)
    above, below = (taken(name, HYPERS[name], 3, {}, RATE + sign * eps)[0] for sign in (1, -1))
    for a, b, direction in zip(above, below, out["lr"], strict=True):
        torch.testing.assert_close(-direction, (a - b) / (2 * eps), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", HYPERS)
def test_asking_for_derivatives_changes_no_bit_of_the_step(name: str) -> None:
    plain, plain_state = taken(name, HYPERS[name], 3, {})
    asked, asked_state = taken(name, HYPERS[name], 3, {key: tensors(3) for key in ("lr", *SMOOTH[name])})
    assert all(torch.equal(a, b) for a, b in zip(plain, asked, strict=True))
    assert all(torch.equal(a, b) for key in plain_state for a, b in zip(plain_state[key], asked_state[key], strict=True))


@pytest.mark.parametrize("name", HYPERS)
def test_all_derivatives_at_once_equal_each_alone(name: str) -> None:
    together = {key: tensors(3) for key in ("lr", *SMOOTH[name])}
    taken(name, HYPERS[name], 4, together)
    for key, values in together.items():
        alone = {key: tensors(4)}
        taken(name, HYPERS[name], 4, alone)
        assert all(torch.equal(a, b) for a, b in zip(values, alone[key], strict=True)), key


@pytest.mark.parametrize("name", HYPERS)
def test_rate_zero_moves_nothing_and_keeps_count(name: str) -> None:
    params, state = taken(name, HYPERS[name], 2, {}, rate=0.0)
    assert all(torch.equal(a, b) for a, b in zip(params, tensors(1), strict=True))
    assert all(not torch.equal(a, b) for key, values in start(name, 2).items() for a, b in zip(values, state[key], strict=True))


@pytest.mark.parametrize(
    ("name", "keys"), [("adam", ("beta1", "beta2", "eps", "weight_decay")), ("rmsprop", ("alpha", "eps", "weight_decay"))]
)
def test_weights_that_never_had_a_gradient_have_finite_derivatives(name: str, keys: tuple[str, ...]) -> None:
    zeros = [torch.zeros(3, dtype=torch.float64)]
    state = {key: [torch.zeros(3, dtype=torch.float64)] for key in BASE_STEPS[name].accumulators}
    out = {key: [torch.full((3,), 7.0, dtype=torch.float64)] for key in ("lr", *keys)}
    h = {**HYPERS[name], "weight_decay": 0.0, "eps": 1e-8}
    BASE_STEPS[name].step(h, RATE, 1, [torch.ones(3, dtype=torch.float64)], zeros, state, out)
    for key, values in out.items():
        assert bool(torch.isfinite(values[0]).all()), key
        assert key == "weight_decay" or not values[0].any(), key


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "lion"])
def test_the_direction_alone_is_the_first_half_of_the_step(name: str) -> None:
    base = base_of(name)
    assert base.direction is not None
    whole, whole_state = taken(name, HYPERS[name], 2, {})
    params, state = tensors(1), start(name, 2)
    direction = base.direction(HYPERS[name], params, tensors(2), state, {})
    torch._foreach_add_(params, direction, alpha=-RATE)
    assert all(torch.equal(a, b) for a, b in zip(whole, params, strict=True))
    assert all(torch.equal(a, b) for key in state for a, b in zip(state[key], whole_state[key], strict=True))


@pytest.mark.parametrize(("name", "key"), [("adam", "beta1"), ("adam", "beta2"), ("adamw", "beta1"), ("adamw", "beta2")])
def test_the_first_step_of_adam_does_not_depend_on_its_betas(name: str, key: str) -> None:
    out = {key: tensors(3)}
    taken(name, HYPERS[name], 1, out)
    assert not any(value.any() for value in out[key]), "not even by rounding: a cosine has no size"


@pytest.mark.parametrize("key", ["beta1", "beta2"])
def test_a_beta_of_one_does_not_raise(key: str) -> None:
    taken("adam", {**HYPERS["adam"], key: 1.0}, 3, {"lr": tensors(3), "beta1": tensors(3), "beta2": tensors(3)})
