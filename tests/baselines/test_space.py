"""The points of a search: known digits, ranges, nesting."""

import math

import pytest

from metaopt.baselines.space import Axis, Trial, halton, trials_of


def test_halton_by_its_digits():
    assert [halton(i, 2) for i in range(1, 8)] == [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]
    assert [halton(i, 3) for i in range(1, 6)] == pytest.approx([1 / 3, 2 / 3, 1 / 9, 4 / 9, 7 / 9])


def test_the_first_powers_of_two_are_evenly_spaced():
    for n in (2, 3, 4, 5):
        assert sorted(halton(i, 2) for i in range(1, 2**n)) == [k / 2**n for k in range(1, 2**n)]


def test_axes_by_hand():
    assert [Axis("lr", 1e-4, 1e-2).at(u) for u in (0, 0.5, 1)] == pytest.approx([1e-4, 1e-3, 1e-2])
    assert [Axis("beta", 0.9, 0.999, "log_one_minus").at(u) for u in (0, 0.5, 1)] == pytest.approx([0.9, 0.99, 0.999])
    assert [Axis("decay", -0.9, -0.5, "linear").at(u) for u in (0, 0.5, 1)] == pytest.approx([-0.9, -0.7, -0.5])


@pytest.mark.parametrize("scale", ["log", "log_one_minus", "linear"])
def test_axes_increase_and_values_are_short(scale):
    values = [Axis("x", 0.5, 0.98, scale).at(i / 50) for i in range(51)]
    assert values == sorted(values)
    digits = [f"{round(1 - value, 10) if scale == 'log_one_minus' else value:.10g}" for value in values]
    assert max(len(text) for text in digits) <= len("0.01234")


def test_the_default_comes_first_and_larger_designs_begin_as_smaller_ones():
    axes = (Axis("lr", 1e-4, 1e-1), Axis("weight_decay", 1e-3, 1.0))
    design = trials_of({"lr": 0.01, "weight_decay": 0.0, "beta": 0.9}, axes, 30)
    assert design[0].hyperparameters == {"lr": 0.01, "weight_decay": 0.0, "beta": 0.9}
    assert {trial.hyperparameters["beta"] for trial in design} == {0.9}
    assert trials_of(design[0].hyperparameters, axes, 7) == design[:7]
    assert design[1].hyperparameters["lr"] == pytest.approx(1e-4 * 10**1.5, rel=1e-3)
    assert design[1].hyperparameters["weight_decay"] == pytest.approx(1e-2, rel=1e-3)


def test_axes_are_not_tied_to_each_other():
    """Rates and decays of a hundred trials are uncorrelated, which a square grid would be too, at many times the trials."""
    design = trials_of({}, (Axis("lr", 1e-4, 1e-1), Axis("weight_decay", 1e-3, 1.0)), 101)[1:]
    x, y = ([math.log(trial.hyperparameters[name]) for trial in design] for name in ("lr", "weight_decay"))
    mean_x, mean_y = sum(x) / 100, sum(y) / 100
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    size = math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))
    assert abs(covariance / size) < 0.05


def test_trials_are_data():
    trial = Trial.of({"weight_decay": 0.1, "lr": 1})
    assert trial == Trial((("lr", 1.0), ("weight_decay", 0.1)))
    assert str(trial) == "lr=1 weight_decay=0.1"
    assert trial.rate == 1.0
    assert sorted([trial, Trial.of({"lr": 0.5, "weight_decay": 0.1})])[0].rate == 0.5


def test_too_many_axes_are_refused():
    with pytest.raises(ValueError, match="at most 5 axes, got 6"):
        trials_of({}, [Axis(str(i), 1.0, 2.0) for i in range(6)], 3)
