"""First rates and towers: what is measured, on a run small enough for a test; and the promise about rates, in full."""

import pytest
import torch

from metaopt.errors import ConfigError
from metaopt.evaluation.rate_robustness import RATES, RateSweep, digits_task, draw_sweeps, sweep_rates, sweeps_table, tower_of
from metaopt.learners.hypergradients import HypergradientLearner


def test_the_error_is_that_of_the_final_weights_and_better_than_chance_where_the_rate_is_right():
    sweep = sweep_rates(tower_of("sgd", 0), digits_task(60, width=16), (1e-6, 0.3), (0, 1))
    assert sweep.error.shape == (2, 2)
    assert float(sweep.error[0].min()) > 0.7
    assert float(sweep.error[1].max()) < 0.35
    assert torch.equal(sweep.learned, torch.tensor([[1e-6] * 2, [0.3] * 2]).double())
    assert bool(sweep.finite.all())


def test_one_level_mends_a_rate_that_is_five_decades_too_small():
    task = digits_task(60, width=16)
    plain, tower = (sweep_rates(tower_of("sgd", height), task, (1e-6,), (0, 1)) for height in (0, 1))
    assert float(tower.error.max()) < 0.4 < float(plain.error.min())
    assert float(tower.learned.min()) > 1e-3


def test_runs_that_are_lost_count_as_wrong():
    error = torch.tensor([[0.1, 0.3], [1.0, 1.0]], dtype=torch.float64)
    sweep = RateSweep((0.1, 1e9), error, torch.ones(2, 2), torch.tensor([[True, True], [False, False]]))
    mean, low, high = sweep.interval()
    assert mean.tolist() == [pytest.approx(0.2), 1.0]
    assert (float(low[0]), float(high[0])) == (pytest.approx(0.1), pytest.approx(0.3))
    assert sweeps_table({"plain": sweep}).splitlines()[2] == "| 1e-01 | 20.0 [10.0, 30.0] |"
    assert draw_sweeps({"sgd": {"plain": sweep}})["png"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sgd", 1, "log", "add"), "update 'add' is unknown"),
        (("adagrad", 1), "base 'adagrad' is unknown"),
        (("sgd", -1), "height must be >= 0"),
        (("sgd", 1, "lg"), "link 'lg' of lr is unknown"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        sweep_rates(tower_of(*arguments), digits_task(1, width=16), (0.1,), (0,))


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sgd", "adam"])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 5])
def test_no_first_rate_makes_a_rate_negative_or_a_run_not_a_number(base, height):
    learner = tower_of(base, height)
    assert isinstance(learner, HypergradientLearner)
    sweep = sweep_rates(learner, digits_task(690), RATES, range(10))
    assert bool(sweep.finite.all())
    assert bool((sweep.learned > 0).all())
