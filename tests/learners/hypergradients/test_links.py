"""Links: inverse maps with true slopes, and values that cannot leave their range."""

import pickle

import pytest
import torch

from metaopt.learners.hypergradients import LINKS

VALUES = {
    "log": [1e-12, 1e-3, 0.1, 7.0, 1e5],
    "logit": [1e-6, 0.1, 0.5, 0.9, 0.999, 1 - 1e-9],
    "square": [1e-12, 1e-3, 0.1, 7.0],
    "identity": [-3.0, 0.0, 0.1, 7.0],
}


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", LINKS)
def test_a_link_returns_the_value_whose_coordinate_it_made(name):
    value = doubles(VALUES[name])
    torch.testing.assert_close(LINKS[name].value(LINKS[name].to(value)), value, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", LINKS)
def test_slopes_equal_central_differences(name):
    link, x, eps = LINKS[name], LINKS[name].to(doubles(VALUES[name])), 1e-6
    numeric = (link.value(x + eps) - link.value(x - eps)) / (2 * eps)
    torch.testing.assert_close(link.slope(x), numeric, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", ["log", "square", "identity"])
def test_a_relative_step_changes_the_value_by_its_share(name):
    link, value, step = LINKS[name], doubles([0.1, 2.0]), 1e-6
    x = link.to(value)
    moved = link.value(x - step * link.relative(x))
    torch.testing.assert_close(moved, value * (1 - step), rtol=1e-11, atol=0)


def test_a_relative_step_of_a_fraction_changes_its_odds_by_its_share():
    link, value, step = LINKS["logit"], doubles([0.1, 0.99]), 1e-6
    x = link.to(value)
    moved = link.value(x - step * link.relative(x))
    torch.testing.assert_close(moved / (1 - moved), value / (1 - value) * (1 - step), rtol=1e-9, atol=0)


def test_a_beta_next_to_one_keeps_the_digits_of_what_is_missing():
    link = LINKS["logit"]
    x = doubles([30.0])
    assert float(link.slope(x)) == pytest.approx(float(torch.exp(-x)), rel=1e-12)


@pytest.mark.parametrize(("name", "low", "high"), [("log", 0.0, float("inf")), ("logit", 0.0, 1.0)])
def test_no_coordinate_that_a_tower_reaches_leaves_the_range(name, low, high):
    value = LINKS[name].value(torch.linspace(-36, 36, 1001, dtype=torch.float64))
    assert bool((value > low).all())
    assert bool((value < high).all())


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_links_travel_to_workers(link):
    assert pickle.loads(pickle.dumps(link)) == link  # noqa: S301
