"""What the figures draw: the lines that were computed, names beside their ends, and marks without exponents."""

import numpy as np
import pytest
import torch

from metaopt.estimators.short_horizon import Offline, OfflineRow, Online, OnlineRun
from metaopt.evaluation.reporting.canvas import canvas
from metaopt.evaluation.short_horizon import figures


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were turned into bytes, in order."""
    kept = []

    def keep(figure, formats):
        figure.draw_without_rendering()
        kept.append(figure)
        return dict.fromkeys(formats, b"")

    monkeypatch.setattr(figures, "picture", keep)
    return kept


def place(heights: list[float], log: bool = False) -> dict[str, float]:
    """Return where names stand, as shares of the height, for an axis from 1 to 100."""
    with canvas(3.0) as figure:
        axes = figure.subplots()
        axes.set(yscale="log" if log else "linear", ylim=(1.0, 100.0))
        figures._named(axes, [(height, str(i), "#000000") for i, height in enumerate(heights)], gap=0.1)
        return {text.get_text(): text.get_position()[1] for text in axes.texts}


def test_names_stand_at_their_values_where_there_is_room():
    assert place([1.0, 10.0, 100.0], log=True) == pytest.approx({"0": 0.0, "1": 0.5, "2": 1.0})
    assert place([50.5]) == pytest.approx({"0": 0.5})
    assert place([]) == {}


def test_names_that_would_touch_stand_around_their_mean_in_their_order():
    assert place([50.5, 50.5, 100.0]) == pytest.approx({"0": 0.45, "1": 0.55, "2": 1.0})
    crowd = list(place([20.0, 21.0, 22.0, 23.0, 90.0]).values())
    assert np.diff(crowd).min() >= 0.1 - 1e-9
    assert np.mean(crowd[:4]) == pytest.approx(20.5 / 99)


def test_a_value_off_the_axis_is_named_at_its_end():
    assert place([1e9]) == pytest.approx({"0": 1.0})
    assert place([1e-9], log=True) == pytest.approx({"0": 0.0})


def test_the_first_figure_shows_losses_and_rates_of_the_same_rules(found, drawn):
    figures.bias_figure(found)
    loss, rate = drawn[0].axes
    assert len(loss.lines) == len(rate.lines) == 6
    assert {text.get_text() for text in loss.texts} == {
        "greedy",
        "plan 10 steps",
        "plan 50 steps",
        "optimal (250)",
        "best constant",
        "hypergradient",
    }
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), found[0].losses)
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), found[0].rates)
    assert [line.get_color() for line in loss.lines] == [line.get_color() for line in rate.lines]
    assert not any("$" in label.get_text() for axes in (loss, rate) for label in axes.get_yticklabels())


def test_the_horizon_curve_has_planners_and_tuned_decays(found, drawn):
    figures.horizon_figure(found)
    [axes] = drawn[0].axes
    planners, tuned, constant = axes.lines
    assert list(planners.get_xdata()) == [1, 2, 5, 10, 25, 50, 100, 250]
    assert list(tuned.get_xdata()) == [10, 25, 50, 100, 250]
    assert constant.get_ydata()[0] == pytest.approx(0.043782, abs=1e-6)
    low, high = axes.get_ylim()
    assert all(low < value < high for value in planners.get_ydata())


def test_long_online_runs_are_thinned_from_their_end_and_failures_cut_off(drawn):
    moments = tuple(range(0, 501))
    losses = torch.linspace(2.0, 0.5, 501).unsqueeze(1).repeat(1, 2)
    failed = losses.clone()
    failed[250] = 1e6
    rate = torch.full((501, 2), 0.01)
    runs = tuple(OnlineRun(*one) for one in (("stochastic", rate, rate, losses), ("deterministic", rate, rate, failed)))
    row = OfflineRow(10, torch.full((2,), 0.1), torch.ones(2), torch.ones(2, 2))
    offline = Offline(10, (0, 10), (row,) * 4)
    figures.network_figure(offline, Online(moments, runs, 0))
    axes = {one.get_title(loc="left"): one for one in drawn[0].axes}
    loss = axes["Online: training loss"]
    assert loss.lines[0].get_xdata()[0] == 500
    assert len(loss.lines[0].get_xdata()) <= 101
    assert loss.get_ylim() == pytest.approx((0.0, 3.0))
    assert {text.get_text() for text in loss.texts} == {"fresh batches", "one batch\nrepeated"}
    chosen = axes["Offline: rate chosen"].lines[0]
    assert chosen.get_ydata()[-1] == pytest.approx(0.1 / 5, rel=1e-5), "1 + t / time is 5 at the end"
