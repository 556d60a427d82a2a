"""Towers: published trajectories, derivatives against central differences of what they differentiate, and what no input can break."""

import functools
import math

import pytest
import torch
from torch.func import vmap

from metaopt.learners.hypergradients import LINKS, build_tower, signal
from metaopt.learners.hypergradients.towers import UPDATES

H = torch.tensor([1.0, 0.3, 0.1], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def sgd(*rates):
    return [{"name": "sgd", "lr": rate} for rate in rates]


def at(tower, value, scopes=1):
    return tower.start({one.name: torch.full((scopes,), value, dtype=torch.float64) for one in tower.learned})


def descend(tower, lr, steps, curvature=H):
    """Return theta after gradient descent on a quadratic under a tower, and the tower's state."""
    theta, last, state = START.clone(), None, at(tower, lr)
    for _ in range(steps):
        grad = curvature * theta
        if last is not None:
            state = tower.observe(state, torch.stack([-(grad @ last)])[None])
        theta, last = theta - tower.values(state)["lr"] * grad, grad
    return theta, state


def test_three_levels_of_gradient_descent_make_the_published_trajectory():
    tower = build_tower("sgd", {"lr": 0.1}, sgd(0.01, 0.001), link="identity")
    theta, state = descend(tower, 0.1, 6)
    torch.testing.assert_close(theta, torch.tensor([0.439352579, -1.5813428222, 0.4628275406], dtype=torch.float64), rtol=0, atol=5e-10)
    assert float(tower.values(state)["lr"]) == pytest.approx(0.15161612515783762, abs=1e-14)
    assert float(tower.rates(state)[0]) == pytest.approx(0.01323693766605522, abs=1e-14)


@pytest.mark.parametrize("link", ["log", "square"])
def test_links_agree_to_first_order(link):
    """The same small steps move a value by the same amount, whatever keeps it in its range."""
    plain, _ = descend(build_tower("sgd", {"lr": 0.1}, sgd(1e-7), link="identity"), 0.1, 6)
    linked, _ = descend(build_tower("sgd", {"lr": 0.1}, sgd(1e-7), link=link), 0.1, 6)
    still, _ = descend(build_tower("sgd", {"lr": 0.1}, sgd(0.0), link=link), 0.1, 6)
    assert torch.linalg.norm(linked - plain) < 1e-4 * torch.linalg.norm(plain - still)


def test_an_exponentiated_step_multiplies_the_value():
    tower = build_tower("sgd", {"lr": 0.1}, sgd(0.01), update="multiplicative")
    state = tower.observe(at(tower, 0.1), torch.tensor([[-3.0]], dtype=torch.float64))
    assert float(tower.values(state)["lr"]) == pytest.approx(0.1 * math.exp(0.03), rel=1e-14)


def test_a_cosine_step_is_that_of_the_literature():
    """log lr goes up by the rate times the cosine of the gradient and the last step's direction, whatever their lengths."""
    tower = build_tower("sgd", {"lr": 0.1}, sgd(0.01), update="cosine")
    grad, last = torch.tensor([3e9, 4e9]).double(), torch.tensor([1e-9, 0.0]).double()
    dot, change = -(grad @ last), last.square().sum()
    state = tower.observe(at(tower, 0.1), signal("cosine", dot[None, None], grad.square().sum()[None], change[None, None]))
    assert float(tower.values(state)["lr"]) == pytest.approx(0.1 * math.exp(0.01 * 0.6), rel=1e-13)


def test_nothing_to_compare_with_is_no_cosine():
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert float(signal("cosine", zero, one, zero)) == 0.0


@pytest.mark.parametrize("update", UPDATES)
def test_a_level_goes_against_the_derivative_in_the_rate_of_the_one_below(update):
    """Central differences of (next signal) x (value after a step), or x its logarithm, of which a cosine is the derivative."""
    link = "identity" if update == "additive" else "log"
    first, second, eps = torch.tensor([[0.3]]).double(), torch.tensor([[-0.7]]).double(), 1e-7
    lower = build_tower("sgd", {"lr": 0.1}, sgd(1e-3), link=link, update=update)

    def objective(rate):
        begun = lower.start({"lr": torch.tensor([0.1], dtype=torch.float64)}, [torch.tensor([rate], dtype=torch.float64)])
        value = lower.values(lower.observe(begun, first))["lr"]
        return float(second * (value.log() if update == "cosine" else value))

    derivative = (objective(1e-3 + eps) - objective(1e-3 - eps)) / (2 * eps)
    tower = build_tower("sgd", {"lr": 0.1}, sgd(1e-3, 1e-6), link=link, update=update)
    before = tower.observe(at(tower, 0.1), first)
    after = tower.observe(before, second)
    step = 1e-6 * derivative  # of the rate itself, or of its logarithm
    rate = 1e-3 - step if update == "additive" else 1e-3 * math.exp(-step)
    assert float(tower.rates(after)[0]) == pytest.approx(rate, abs=1e-5 * abs(rate - 1e-3), rel=0)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("height", [1, 2, 5])
@pytest.mark.parametrize("part", ["sgd", "momentum", "adam", "rmsprop", "sign"])
def test_no_signal_breaks_a_tower(update, height, part):
    """Signals from 1e-300 to 1e300 of both signs: rates stay positive, finite and within their bounds; fractions stay fractions."""
    tower = build_tower("adam", {"lr": 1e-3, "beta1": 0.9, "eps": 1e-8}, [part] * height, ["lr", "beta1", "eps"], update=update)
    state = tower.start({"lr": torch.tensor([1e-3]), "beta1": torch.tensor([0.9]), "eps": torch.tensor([1e-8])})
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        size = 10.0 ** (600 * torch.rand(1, 3, generator=generator, dtype=torch.float64) - 300)
        sign = torch.sign(torch.randn(1, 3, generator=generator, dtype=torch.float64))
        state = tower.observe(state, size * sign)
        for one in tower.learned:
            value = float(tower.values(state)[one.name])
            assert one.low * (1 - 1e-9) <= value <= one.high * (1 + 1e-9)
        for rate in tower.rates(state):
            assert 0 < float(rate) < math.inf


def test_one_step_changes_a_rate_by_a_factor_of_e_at_most():
    tower = build_tower("sgd", {"lr": 1e-6}, sgd(0.01))
    state = tower.observe(at(tower, 1e-6), torch.tensor([[-5.0]], dtype=torch.float64))
    assert float(tower.values(state)["lr"]) == pytest.approx(math.e * 1e-6, rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_signal_that_is_not_finite_leaves_its_scope_as_it_is_and_is_counted(bad):
    tower = build_tower("sgd", {"lr": 0.1, "weight_decay": 1e-3}, ["adam", "adam"], ["lr", "weight_decay"])
    state = tower.start({"lr": torch.tensor([0.1, 0.1]), "weight_decay": torch.tensor([1e-3, 1e-3])})
    state = tower.observe(state, torch.tensor([[0.1, 0.2], [0.1, 0.2]], dtype=torch.float64))
    after = tower.observe(state, torch.tensor([[0.3, bad], [0.3, 0.1]], dtype=torch.float64))
    for name, value in after.items():
        if name == "skipped":
            assert value.tolist() == [1.0, 0.0]
        else:
            assert torch.equal(value[0], state[name][0]), name
    assert not torch.equal(after["x0"][1], state["x0"][1])


@pytest.mark.parametrize("update", UPDATES)
def test_finite_signals_need_no_looking_at(update):
    tower = build_tower("adam", {"lr": 1e-3, "beta1": 0.9}, ["adam", "sgd"], ["lr", "beta1"], update=update)
    state = tower.start({"lr": torch.tensor([1e-3]), "beta1": torch.tensor([0.9])})
    for signals in torch.randn(5, 1, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64):
        looked, trusted = tower.observe(state, signals), tower.advance(state, signals)
        assert looked.keys() == trusted.keys()
        assert all(torch.equal(looked[name], value) for name, value in trusted.items())
        state = trusted


def test_scopes_do_not_see_each_other():
    tower = build_tower("sgd", {"lr": 0.1}, ["adam", "sgd"])
    signals = torch.randn(5, 3, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = at(tower, 0.1, 3)
    alone = [at(tower, 0.1) for _ in range(3)]
    for step in signals:
        together = tower.observe(together, step)
        alone = [tower.observe(state, step[i : i + 1]) for i, state in enumerate(alone)]
    for i, state in enumerate(alone):
        assert all(torch.equal(together[name][i : i + 1], value) for name, value in state.items())


def test_towers_run_under_vmap_with_rates_of_their_own():
    tower = build_tower("sgd", {"lr": 0.1}, ["sgd", "sgd"])
    rates = torch.tensor([0.01, 0.1], dtype=torch.float64)
    signals = torch.randn(2, 1, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def one(rate, seen):
        state = tower.start({"lr": torch.tensor([0.1], dtype=torch.float64)}, [rate[None], rate[None]])
        return tower.values(tower.observe(tower.observe(state, seen), seen))["lr"]

    looped = torch.stack([one(rate, seen) for rate, seen in zip(rates, signals, strict=True)])
    torch.testing.assert_close(vmap(one)(rates, signals), looped, rtol=1e-14, atol=0)


def test_a_rate_of_zero_at_the_top_changes_nothing():
    tower = build_tower("sgd", {"lr": 0.1}, sgd(0.0), link="identity")
    state = functools.reduce(lambda s, x: tower.observe(s, torch.full((1, 1), x, dtype=torch.float64)), [1.0, -2.0, 1e9], at(tower, 0.1))
    assert torch.equal(tower.values(state)["lr"], torch.tensor([0.1], dtype=torch.float64))


def test_the_links_of_a_tower_are_the_registered_ones():
    assert build_tower("sgd", {"lr": 0.1}).link is LINKS["log"]
    assert build_tower("sgd", {"lr": 0.1}, link="identity").link is LINKS["identity"]
