"""Figures show what the tables hold, keep a line's look everywhere, and have the same bytes every time."""

import io
import re
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from metaopt.baselines import Curves
from metaopt.evaluation.reporting import axis_figures, headline_figures, planning_figure
from metaopt.evaluation.reporting.canvas import canvas, label, lines_of, most_tuned, picture
from metaopt.evaluation.reporting.curve_figures import band_table, curve_figure, drawn_curves
from metaopt.evaluation.reporting.figure_catalogue import catalogue, curves_name
from metaopt.evaluation.tables.results import make_table
from tests.evaluation import made_results as made


@pytest.fixture(scope="module")
def lines():
    return lines_of(made.plain().summary)


def panels(drawn, monkeypatch, module):
    """The axes of what a function draws."""
    kept = []
    monkeypatch.setattr(module, "picture", lambda figure, _: kept.append(figure) or {})
    drawn()
    return kept[0].axes


def test_a_line_looks_the_same_whatever_else_is_drawn(lines):
    fewer = lines_of(made.plain().summary.query("trials != 5"))
    looks = {line.name: line for line in lines}
    assert all(looks[line.name] == line for line in fewer)
    assert len({(line.colour, str(line.style["linestyle"])) for line in most_tuned(lines)}) == 7


def test_learners_are_strong_and_baselines_muted(lines):
    for line in lines:
        assert (line.style["linewidth"] > 2) == (line.kind == "learner")
        assert (line.band > 0) == (line.kind == "learner")
    assert {line.style["alpha"] for line in lines if line.trials == 15} == {1.0}
    assert max(line.style["alpha"] for line in lines if line.kind == "baseline" and line.trials < 15) < 1.0


def test_many_learners_keep_different_looks():
    rows = [{"learner": f"l{i}", "kind": "learner", "trials": 1} for i in range(8)]
    looks = {(line.colour, line.style["linestyle"]) for line in lines_of(pd.DataFrame(rows))}
    assert len(looks) == 8


@pytest.mark.parametrize(
    ("text", "shown"), [("short", "short"), ("_hidden", " _hidden"), ("$x$", "$x$"), ("a" * 20 + "b" * 20, "a" * 17 + "…" + "b" * 8)]
)
def test_labels_are_neither_formulas_nor_hidden_nor_long(text, shown):
    assert label(text) == shown
    assert len(label(text * 9)) <= 27


@pytest.mark.parametrize("results", [made.plain, made.ordered, made.unordered])
def test_every_figure_is_a_sharp_picture_as_wide_as_a_phone(results):
    known = catalogue(results())
    shown = [name for name in known if not name.startswith("curves-")] + [name for name in known if name.startswith("curves-")][:1]
    for name in shown:
        drawn = known[name].draw(("png", "svg"))
        image = Image.open(io.BytesIO(drawn["png"]))
        assert image.width == (1200 if name == "headline" else 736)
        assert 200 < image.height < 1600
        assert np.asarray(image.convert("L")).std() > 5, f"{name} is not empty"
        assert len(drawn["svg"]) < 150_000
        assert b"<text" not in drawn["svg"], "letters are shapes, so that no font is missing"
        assert len(known[name].caption) > 20


def test_a_user_s_settings_change_nothing():
    (draw,) = (catalogue(made.small())["score"].draw,)
    plain = draw(("png", "svg"))
    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "red", "svg.hashsalt": None, "savefig.dpi": 30}):
        assert draw(("png", "svg")) == plain
        assert matplotlib.rcParams["font.size"] == 30.0
    assert draw(("svg",))["svg"] == plain["svg"], "nor does leaving a format out"


def test_a_picture_carries_no_date():
    with canvas(1.0) as figure:
        figure.subplots()
        drawn = picture(figure, ("png", "svg"))
    assert not re.search(rb"20\d\d-\d\d|dc:date|matplotlib.org", drawn["svg"])
    assert set(Image.open(io.BytesIO(drawn["png"])).info) == {"dpi", "Software"}
    assert Image.open(io.BytesIO(drawn["png"])).info["Software"] == ""


def test_the_headline_shows_intervals_and_the_reference(lines, monkeypatch):
    summary = made.plain().summary
    axes = panels(lambda: headline_figures.headline_figure(summary, lines, ("score",), ()), monkeypatch, headline_figures)[0]
    values = sorted(float(one.get_xdata()[0]) for one in axes.lines if len(one.get_xdata()) == 1)
    assert values == pytest.approx(sorted(summary.score))
    assert any(list(one.get_xdata()) == [1, 1] for one in axes.lines), "the reference"
    assert [text.get_text() for text in axes.get_yticklabels()][3:5] == ["adamw K=1", "adamw K=5"]


def test_a_line_without_a_value_leaves_its_place_empty(lines, monkeypatch):
    summary = made.plain().summary.assign(speed_up=np.nan)
    axes = panels(lambda: headline_figures.headline_figure(summary, lines, ("speed_up",), ()), monkeypatch, headline_figures)[0]
    assert [one for one in axes.lines if len(one.get_xdata()) == 1] == []
    assert len(axes.get_yticklabels()) == len(lines)


def test_the_strip_marks_failures_and_what_did_not_run(lines, monkeypatch):
    results = made.plain()
    axes = panels(lambda: headline_figures.task_strip(results.tasks, lines, made.TASKS, ()), monkeypatch, headline_figures)[0]
    crosses = {(int(one.get_xdata()[0]), int(one.get_ydata()[0])) for one in axes.lines if one.get_marker() == "x"}
    assert crosses == {(2, 1), (2, 5)}
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [((1, made.TASKS.index("rnn")), "-")]
    shown = axes.collections[0].get_array()
    assert shown[0, 0] == pytest.approx(results.tasks.score[0])


def axis_panel(results, measure, monkeypatch):
    args = (measure, "width", results.levels, results.branches, lines_of(results.summary), ())
    return panels(lambda: axis_figures.axis_figure(*args), monkeypatch, axis_figures)[0]


def test_the_axis_marks_each_level_by_its_support(monkeypatch):
    axes = axis_panel(made.ordered(), "score", monkeypatch)
    marks = {}
    for one in axes.lines:
        if one.get_marker() in ("o", "s", "D") and len(one.get_xdata()) == 1:
            marks.setdefault(one.get_marker(), {})[float(one.get_xdata()[0])] = one.get_markerfacecolor()
    filled = {marker: {factor for factor, fill in found.items() if fill not in ("white", "#cccccc")} for marker, found in marks.items()}
    assert filled == {"o": {0.5, 1.0, 2.0}, "s": {0.25, 0.5, 1.0}, "D": set()}
    assert set(marks["D"].values()) == {"#cccccc"}, "a card that says nothing"
    assert axes.get_xscale() == "log"
    (low, high) = (patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches)
    assert [low.x0, high.x1] == pytest.approx([0.125**0.5, 2**0.5]), "levels inside for all learners that say so"


def test_a_break_point_is_a_star_and_home_without_a_score_has_no_retention(monkeypatch):
    axes = axis_panel(made.ordered(), "retention", monkeypatch)
    stars = [(float(one.get_xdata()[0]), float(one.get_ydata()[0])) for one in axes.lines if one.get_marker() == "*"]
    assert stars == [(6.0, 0.5)]
    assert not any(one.get_marker() == "s" for one in axes.lines), "the learner without retention is not drawn"


def test_a_branch_down_breaks_at_the_inverse(monkeypatch):
    results = made.ordered()
    down = results.branches.assign(direction="down").query("learner == 'celo2-base'").head(1)
    axes = axis_panel(replace(results, branches=down.assign(s50=3.0)), "retention", monkeypatch)
    assert [float(one.get_xdata()[0]) for one in axes.lines if one.get_marker() == "*"] == pytest.approx([1 / 3])


def test_an_axis_without_an_order_shows_points_only(monkeypatch):
    axes = axis_panel(made.unordered(), "score", monkeypatch)
    assert [text.get_text() for text in axes.get_xticklabels()] == list(made.ACTIVATIONS)
    assert axes.get_xscale() == "linear"
    assert len([one for one in axes.lines if len(one.get_xdata()) == 1]) == len(made.ACTIVATIONS) * 11


def test_a_negative_training_loss_can_be_drawn(lines):
    steps = np.linspace(0.0, 40.0, 11)
    curve = np.linspace(1.0, 0.01, 11)[:, None] + np.zeros(3)
    curves = Curves(steps, curve, curve - 0.05, np.zeros(3, dtype=bool))
    assert curve_figure("below", [(lines[0], curves)], ("png",))["png"].startswith(b"\x89PNG")
    assert curve_figure("nobody", [], ("png",))["png"].startswith(b"\x89PNG")


def test_a_run_that_explodes_does_not_flatten_the_others(lines, monkeypatch):
    from metaopt.evaluation.reporting import curve_figures

    good, bad = made.falling(0.3), made.falling(0.3)
    bad.heldout[5:] = 1e6
    drawn = [(lines[0], good), (lines[1], bad)]
    axes = panels(lambda: curve_figure("mixed", drawn, ()), monkeypatch, curve_figures)[0]
    assert axes.get_ylim()[1] == pytest.approx(1.4)


def test_a_task_on_which_every_median_is_lost_can_be_drawn(lines):
    lost = made.falling(0.3)
    lost.heldout[:, 1] = np.nan
    assert curve_figure("lost", [(lines[0], lost)], ("png",))["png"].startswith(b"\x89PNG")


def planning_panel(planning, monkeypatch):
    results = made.ordered()
    args = (planning, results.summary, lines_of(results.summary), ())
    return panels(lambda: planning_figure.planning_figure(*args), monkeypatch, planning_figure)[0]


def test_a_method_is_one_line_over_its_planning_horizons(lines, monkeypatch):
    axes = planning_panel(made.ordered().planning, monkeypatch)
    drawn = {one.get_color(): one for one in axes.lines if one.get_linestyle() == "-" and one.get_marker() != "None"}
    found = {colour: list(zip(*one.get_data(), strict=True)) for colour, one in drawn.items()}
    looks = {line.learner: line.colour for line in lines}
    own = {name: pytest.approx(score) for name, score in made.LEARNERS.items()}
    assert found[looks["celo2-base"]] == [(20.0, own["celo2-base"]), (1000.0, own["<script>"])], "the look of its first learner"
    assert found[looks[list(own)[2]]] == [(300.0, own[list(own)[2]])]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["20", "300", "1000"]


def test_planning_has_level_lines_for_tuned_baselines_and_the_span_of_horizons(monkeypatch):
    results = made.ordered()
    axes = planning_panel(results.planning, monkeypatch)
    levels = {round(float(one.get_ydata()[0]), 9) for one in axes.lines if list(one.get_xdata()) == [0, 1]}
    tuned = results.summary[(results.summary.kind == "baseline") & (results.summary.trials == 15)]
    assert levels == {1.0, *(round(float(score), 9) for score in tuned.score)}
    (span,) = axes.patches[:1]
    assert [span.get_x(), span.get_x() + span.get_width()] == [1000.0, 5000.0]


def test_labels_of_planning_horizons_keep_their_distance(monkeypatch):
    many = made.ordered().planning.assign(method="m", planning_steps=[10, 10, 10, 11, 11, 11, 1000, 1000, 1000])
    assert [text.get_text() for text in planning_panel(many, monkeypatch).get_xticklabels()] == ["10", "1000"]


def test_lines_find_their_curves_by_name(lines):
    found = drawn_curves(lines, {"celo2-base": 1, "sgd K=15": 2}, {"sgd K=15": 3, "other": 4})
    assert [(line.name, curves) for line, curves in found] == [("celo2-base", 1), ("sgd K=15", 3)]


def test_a_band_is_median_lowest_and_highest():
    curves = Curves(np.arange(2.0), np.array([[1.0, 2.0, 9.0], [0.0, 0.5, 0.6]]), np.ones((2, 3)), np.zeros(3, dtype=bool))
    table = band_table(curves)
    assert table["steps"] == [0.0, 1.0]
    assert (table["heldout_median"], table["heldout_low"], table["heldout_high"]) == ([2.0, 0.5], [1.0, 0.0], [9.0, 0.6])


def test_figures_without_data_are_absent():
    results = made.small()
    empty = {name: make_table(name, []) for name in ("tasks", "score_profile", "time_profile", "tunability")}
    assert set(catalogue(replace(results, curves={}, **empty))) == {"headline", "score", "speed_up"}
    hopeless = made.ordered()
    nothing = replace(hopeless, levels=hopeless.levels.assign(retention=np.nan))
    assert "axis-score" in catalogue(nothing)
    assert "axis-retention" not in catalogue(nothing)
    assert "planning" in catalogue(hopeless)
    assert "planning" not in catalogue(made.unordered())


def test_names_of_curves_are_names_of_files():
    assert curves_name("mlp@x0.5") == "curves-mlp@x0.5"
    assert curves_name("../a") == "curves-..%2Fa"
    assert len({curves_name(task) for task in ("a/b", "a%2Fb", "a b", "a_b")}) == 4
