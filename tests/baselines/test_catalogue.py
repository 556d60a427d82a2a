"""Rate grids: nested, centred where documented."""

from itertools import pairwise

import pytest

from metaopt import baselines
from metaopt.errors import ConfigError
from metaopt.learners.update_rules import get_rule


@pytest.mark.parametrize("name", baselines.names())
def test_larger_budgets_contain_smaller_ones(name):
    baseline = baselines.get(name)
    grids = [set(baseline.rates(trials)) for trials in baselines.TRIALS]
    assert [len(grid) for grid in grids] == list(baselines.TRIALS)
    assert grids[0] < grids[1] < grids[2]
    assert grids[0] == {baseline.default_lr}
    assert list(baseline.rates(15)) == sorted(baseline.rates(15))


def test_rates_are_thirds_of_a_decade():
    rates = baselines.get("adamw").rates(15)
    assert rates[5] == 1e-3
    assert rates[-1] == 1.0
    assert all(b / a == pytest.approx(10 ** (1 / 3), rel=1e-3) for a, b in pairwise(rates))


@pytest.mark.parametrize("name", baselines.names())
def test_every_baseline_names_a_rule_with_a_rate(name):
    assert "lr" in get_rule(baselines.get(name).rule).hyperparameters


def test_unknown_baseline_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'adamw'"):
        baselines.get("adamww")
