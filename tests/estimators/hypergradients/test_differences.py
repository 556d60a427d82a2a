"""Every derivative against central differences in float64: rules, run lengths, windows, schedules."""

import pytest
import torch

from metaopt.estimators.hypergradients import DiscountedForward, ForwardShared, Unrolled, hypergradient
from tests.estimators.hypergradients import problems
from tests.estimators.hypergradients.problems import HYPERPARAMETERS, curved, differences, hyperparameters, mlp

CLOSE = {"rtol": 1e-5, "atol": 1e-8}


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("rule", HYPERPARAMETERS)
def test_every_hyperparameter_of_every_rule(rule, steps):
    problem, values = mlp(rule, steps), hyperparameters(rule)
    expected = differences(*problem, values)
    found = hypergradient("unrolled", *problem, values)
    assert set(found) == set(HYPERPARAMETERS[rule])
    for name in values:
        torch.testing.assert_close(found[name], expected[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    if steps == 5:
        assert min(float(value.abs()) for value in found.values()) > 1e-5, "every hyperparameter has something to agree on"


@pytest.mark.parametrize("method", [DiscountedForward(), Unrolled(checkpoint_steps=2)])
def test_hyperparameters_of_any_shape(method):
    problem = curved(6)
    found = hypergradient(method, *problem)
    expected = differences(*problem)
    for name, value in problem[-1].items():
        assert found[name].shape == value.shape
        torch.testing.assert_close(found[name], expected[name], **CLOSE)


@pytest.mark.parametrize("window", [1, 2, 3, 6])
def test_a_window_is_the_run_that_changes_in_it_alone(window):
    problem = curved(6)
    found = hypergradient(Unrolled(window), *problem)
    expected = differences(*problem, first=6 - window)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **CLOSE)
    if window < 6:
        assert not torch.allclose(found["rate"], hypergradient("unrolled", *problem)["rate"], rtol=1e-3)


@pytest.mark.parametrize("segments", [1, 2, 3, 7])
def test_shared_schedules(segments):
    """Also where the number of segments does not divide that of the steps."""
    inner, state, batches, outer, values = curved(7)
    generator = torch.Generator().manual_seed(0)
    schedules = {
        name: value + 0.02 * torch.rand(segments, *value.shape, generator=generator, dtype=torch.float64) for name, value in values.items()
    }
    found = hypergradient(ForwardShared(segments), inner, state, batches, outer, schedules)

    def scheduled(state, place, hyper):
        t = int(place)
        return inner(state, batches[t], {name: value[t * segments // 7] for name, value in hyper.items()})

    expected = differences(scheduled, state, torch.arange(7), outer, schedules)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **CLOSE)


def test_the_differences_are_worth_comparing_with():
    """Break the derivative of one step by 1e-4 of it, and the tolerance sees it."""
    problem = curved(3)
    expected = differences(*problem)["rate"]
    assert not torch.allclose(hypergradient("unrolled", *problem)["rate"] * (1 + 1e-4), expected, **CLOSE)
    assert problems.STEP == 1e-6
