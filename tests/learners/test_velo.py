"""VeLO: published sizes, the bank and its mixture, what tensors tell each other, and what an untrained one does."""

import math

import pytest
import torch
from torch import Tensor

from metaopt import seeds
from metaopt.learners.update_rules import FEATURES, ModelRule, get_model_rule
from metaopt.learners.update_rules.rnn_mlp import TENSOR_FEATURES as RNN_MLP_INPUTS
from metaopt.learners.update_rules.tensor_lstm import init_tensor_lstm, tensor_lstm
from metaopt.learners.update_rules.velo_features import RUN_FEATURES, accumulate, init_accumulators, tensor_features
from metaopt.learners.update_rules.velo_features import TENSOR_FEATURES as VELO_TENSOR_FEATURES
from metaopt.learners.update_rules.velo_mlp import init_bank, init_network, mixed_networks, without_prefix

SMALL = {"lstm_hidden": 6, "mixture": 4}
HORIZON = torch.tensor(40.0, dtype=torch.float64)


def draw(*parts: object, shape: tuple[int, ...]) -> Tensor:
    return seeds.normal(seeds.key("test", *parts), shape, torch.float64)


def size(theta: dict[str, Tensor], prefix: str = "") -> int:
    return sum(value.numel() for name, value in theta.items() if name.startswith(prefix))


def double(theta: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in theta.items()}


def steps_of(rule: ModelRule, theta: dict[str, Tensor], params: dict[str, Tensor], steps: int = 3) -> dict[str, Tensor]:
    """The directions of the last of some updates."""
    state, found = rule.init_state(theta, params), {}
    for t in range(steps):
        grads = {name: draw("g", name, t, shape=tuple(p.shape)) for name, p in params.items()}
        found, state = rule.update(theta, params, grads, state, torch.tensor(t), torch.tensor(1.0 / (t + 1)).double(), HORIZON)
    return found


def test_sizes_are_the_published_ones() -> None:
    theta = get_model_rule("velo").init_theta(0)
    never_heard = 30 * 512 + 512  # a layer of the release that computes nothing anyone reads
    assert size(theta) + never_heard == 2_320_385
    assert size(theta, "bank_") == 256 * 159
    assert tuple(theta["bank_w0"].shape) == (256, 4, 30)
    assert len(FEATURES["velo"]) == RUN_FEATURES + VELO_TENSOR_FEATURES == 30
    celo = get_model_rule("celo").init_theta(0)
    assert (size(celo, "rule_"), size(celo, "schedule_")) == (159, 35_649)
    assert len(FEATURES["celo"]) == 30
    assert RUN_FEATURES == 18
    assert size(get_model_rule("rnn_mlp").init_theta(0)) == 35_799
    assert (len(RNN_MLP_INPUTS), len(FEATURES["rnn_mlp"]), len(FEATURES["hierarchical_rnn"])) == (52, 54, 9)


def test_states_have_the_published_sizes() -> None:
    def count(name: str, shape: tuple[int, ...] = (10, 3), **options: object) -> int:
        rule = get_model_rule(name, **options)
        state = rule.init_state(rule.init_theta(0), {"p": torch.zeros(shape)})
        return 4 * sum(value.numel() for value in state["tensors"]["p"].values())

    lines = 4 * 3 * (10 + 3)  # rows and columns for three decays
    assert count("velo", **SMALL) == 16 * 30 + lines + 2 * 4 * 6
    assert count("velo", (10,), **SMALL) == (16 + 12) * 10 + 2 * 4 * 6
    assert count("celo") == 16 * 30 + lines
    assert count("celo", direction="adam") == 8 * 30
    assert count("rnn_mlp") == 40 * 30 + 4 * (2 * 64 + 16)
    assert count("hierarchical_rnn") == 84 * 30 + 4 * 20


@pytest.mark.parametrize("name", ["velo", "celo"])
@pytest.mark.parametrize("relative", [True, False])
def test_untrained_it_is_momentum_over_the_root_second_moment(name: str, relative: bool) -> None:
    options = {"parameter_scale": relative, **(SMALL if name == "velo" else {})}
    rule = get_model_rule(name, **options)
    params = {"m": draw("m", shape=(4, 3)), "v": draw("v", shape=(5,)), "s": draw("s", shape=())}
    found = steps_of(rule, double(rule.init_theta(2)), params)
    for key, param in params.items():
        m, v = torch.zeros_like(param), torch.zeros_like(param)
        for t in range(3):
            grad = draw("g", key, t, shape=tuple(param.shape))
            m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        adam = m / torch.sqrt(v + 1e-6)
        expected = 1e-3 * adam / torch.sqrt((adam**2).mean() + 1e-5)
        if relative:
            expected = expected * torch.sqrt((param**2).mean() + 1e-9)
        torch.testing.assert_close(found[key], expected, rtol=1e-5, atol=1e-9)


def test_the_bank_begins_around_one_network() -> None:
    bank, center = init_bank("adam", 4, 16, 5), init_network("adam", 4, 5)
    for name, value in bank.items():
        torch.testing.assert_close(value.mean(0), center[name], rtol=0, atol=1e-6)
    assert all(bank[name].std(0).min() > 0.02 for name in ("w0", "w1", "w2"))  # members differ, so that a mixture can move


@pytest.mark.parametrize(("mixture", "factor"), [(8, 1.0), (256, 100.0)])
def test_a_random_mixture_is_bounded(mixture: int, factor: float) -> None:
    """muVeLO's size, and the full bank: networks have the size of one of the bank's or less, not a hundred times."""
    theta = get_model_rule("velo", start="random", lstm_hidden=16, mixture=mixture, mixture_factor=factor).init_theta(0)
    coefficients = torch.tanh(seeds.normal(seeds.key("test"), (20, 16))) @ theta["mixture_weight"].mT
    for network in mixed_networks(without_prefix("bank_", theta), coefficients, factor):
        assert float(network["w0"].abs().max()) < 2.0


def test_mixtures_equal_sums_over_the_bank() -> None:
    bank = {name: draw(name, shape=tuple(value.shape)) for name, value in init_bank("random", 3, 5, 0).items()}
    coefficients = draw("c", shape=(2, 5))
    for k, network in enumerate(mixed_networks(bank, coefficients, 7.0)):
        for name, value in network.items():
            expected = 7.0 * sum(coefficients[k, j] * bank[name][j] for j in range(5)) / 5
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)


def test_tensors_hear_each_other_through_the_maximum() -> None:
    theta = {name: value.double() + 0.1 * draw(name, shape=tuple(value.shape)) for name, value in init_tensor_lstm(4, 3, 0).items()}
    x, zero = draw("x", shape=(3, 4)), torch.zeros(3, 3, dtype=torch.float64)
    hidden, _ = tensor_lstm(theta, x, zero, zero)
    other, _ = tensor_lstm(theta, torch.cat([x[:2], 9.0 * x[2:]]), zero, zero)
    assert not torch.equal(hidden[0], other[0])
    deaf = {**theta, "pool_weight": torch.zeros_like(theta["pool_weight"]), "pool_bias": -torch.ones_like(theta["pool_bias"])}
    alone, _ = tensor_lstm(deaf, x[:1], zero[:1], zero[:1])
    together, _ = tensor_lstm(deaf, x, zero, zero)
    torch.testing.assert_close(together[:1], alone, rtol=1e-12, atol=0)
    twice, _ = tensor_lstm(theta, torch.cat([x, x]), torch.cat([zero, zero]), torch.cat([zero, zero]))
    torch.testing.assert_close(twice[:3], hidden, rtol=1e-12, atol=0)  # a second copy of every tensor changes no maximum


def test_rates_multiply_and_may_be_negative() -> None:
    rule = get_model_rule("velo", **SMALL)
    theta, params = double(rule.init_theta(0)), {"m": draw("m", shape=(4, 3))}
    one = steps_of(rule, theta, params)["m"]
    back = steps_of(rule, {**theta, "rate_bias": torch.tensor([-2.0], dtype=torch.float64)}, params)["m"]
    torch.testing.assert_close(back, -2.0 * one, rtol=1e-12, atol=0)
    still = steps_of(rule, {**theta, "rate_bias": torch.zeros(1, dtype=torch.float64)}, params)["m"]
    assert not still.any()


@pytest.mark.parametrize(("shape", "rank"), [((), 0), ((1,), 0), ((3,), 1), ((1, 3), 1), ((2, 3), 2), ((2, 1, 3), 2), ((2, 2, 2, 2), 4)])
def test_rank_counts_axes_longer_than_one(shape: tuple[int, ...], rank: int) -> None:
    param = draw("p", shape=shape)
    found = tensor_features(param, init_accumulators(param))
    assert found[1:6].tolist() == [float(i == rank) for i in range(5)]
    assert (found[[0, *range(6, 12)]] == -2.5).all()  # accumulators without a gradient have the smallest log size


def test_sizes_of_tensors_are_relative_and_bounded() -> None:
    param = draw("p", shape=(6, 5))
    state = init_accumulators(param)
    for t in range(5):
        _, state = accumulate(param, 10.0 * draw("g", t, shape=(6, 5)), state)
    found = tensor_features(param, state)
    m, v = state["m"], state["v"]
    root = 1 / float((param**2).mean().sqrt())
    assert float(found[0]) == pytest.approx(0.5 * math.log(1e-8 + 10 * root * float(v.mean())), rel=1e-12)
    assert float(found[6]) == pytest.approx(0.5 * math.log(1e-8 + 10 * root**2 * float(m[0].var(correction=0))), rel=1e-12)
    shifted = ((root * v - root * m[2].mean()) ** 2).mean()
    assert float(found[11]) == pytest.approx(0.5 * math.log(1e-8 + 10 * float(shifted)), rel=1e-10)
    tiny = tensor_features(torch.zeros_like(param), state)
    assert torch.isfinite(tiny).all()
    assert tiny.abs().max() <= 2.5
