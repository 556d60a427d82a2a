"""Levels and branches of a suite whose degradation is known, and gaps between its inside and outside."""

import math

import numpy as np
import pytest

from metaopt.evaluation.tables import gather
from metaopt.evaluation.tables.results import records
from tests.evaluation.synthetic import BEST, World, ending, line, still

LEVELS = {"x0.5": 0.5, "x1": 1.0, "x2": 2.0, "x4": 4.0}
NAMES = tuple(f"{base}@{level}" for base in "abcd" for level in LEVELS)
SCORES = {"x0.5": 1.0, "x1": 1.0, "x2": 0.75, "x4": 0.25}


def at(scores):
    """Runs that score so much at each level, where the reference ends at BEST on every one of them."""
    return lambda task: ending(1.0 - (1.0 - BEST) * scores[task.partition("@")[2]])


def world(**learners):
    made = World(tasks=NAMES, levels=dict(LEVELS), learners={(name, 0): curves for name, curves in learners.items()})
    made.ends |= {("adamw", 1): lambda task: 0.4 if task.endswith("@x1") else 0.7 if task.endswith("@x2") else 0.94}
    return made


@pytest.fixture(scope="module")
def results():
    return world(mine=at(SCORES), twin=ending(BEST), still=still()).run()


def test_every_level_has_its_score_and_what_is_left_of_home(results):
    levels = results.levels[results.levels.learner == "mine"]
    assert levels.level.tolist() == list(LEVELS), "in the order of the axis"
    assert levels.factor.tolist() == list(LEVELS.values())
    assert levels.score.tolist() == pytest.approx(list(SCORES.values()))
    assert levels.retention.tolist() == pytest.approx(list(SCORES.values()))
    home = line(results.levels, "mine", level="x1")
    assert (home.retention_low, home.retention_high) == (1.0, 1.0)
    assert home.score_low < home.score < home.score_high


def test_branches_have_the_break_point_of_the_curve(results):
    """Half of the score is left half-way between x2 and x4."""
    up, down = (line(results.branches, "mine", direction=direction) for direction in ("up", "down"))
    assert up.s50 == pytest.approx(3.0)
    assert 2.8 < up.s50_low < up.s50 < up.s50_high < 3.2
    assert up.slope == pytest.approx(-0.375)
    assert up.area == pytest.approx((0.875 + 0.5) / 2)
    assert up.falls_throughout
    assert (down.s50, down.slope) == (math.inf, pytest.approx(0.0, abs=1e-9))
    assert records(results.branches)[1]["s50"] == "inf"


def test_the_reference_itself_keeps_all_and_a_still_learner_has_nothing_to_keep(results):
    twin = results.levels[results.levels.learner == "twin"]
    assert twin.retention.tolist() == pytest.approx([1.0] * 4)
    idle = results.levels[results.levels.learner == "still"]
    assert idle.score.tolist() == [0.0] * 4
    assert idle[["retention", "retention_low", "retention_high"]].isna().all(axis=None)
    assert line(results.branches, "still", direction="up")[["s50", "s50_low", "s50_high"]].isna().all()


def test_a_baseline_at_its_default_degrades_too(results):
    lines = set(results.levels[["learner", "trials"]].itertuples(index=False, name=None))
    assert lines == {("mine", 1), ("twin", 1), ("still", 1), ("adamw", 1), ("adamw", 15), ("sgd", 1), ("sgd", 15)}
    default = results.levels[(results.levels.learner == "adamw") & (results.levels.trials == 1)]
    assert default.retention.tolist() == pytest.approx([0.1, 1.0, 0.5, 0.1])
    assert line(results.branches, "adamw", 1, direction="up").s50 == pytest.approx(2.0, abs=0.01)


def test_levels_of_a_task_are_one_task_for_coverage(results):
    assert [warning.split(";")[0] for warning in results.warnings] == ["Under-covered: 1 meta-seed and 4 tasks"]
    assert line(results.summary, "mine").tasks == 16


def test_the_order_of_tasks_changes_nothing(results):
    made = world(mine=at(SCORES), twin=ending(BEST), still=still())
    made.tasks = made.tasks[::-1]
    other = made.run()
    assert other.levels.equals(results.levels)
    assert other.branches.equals(results.branches)


def test_support_marks_levels_and_makes_gaps(monkeypatch):
    """A card that knows x0.5 and x1: the learner scores 1 there and 0.5 on average elsewhere."""
    inside = {"mine": ("x0.5", "x1"), "wide": tuple(LEVELS), "twin": ("x1",)}
    made = world(mine=at(SCORES), wide=at(SCORES), twin=ending(BEST), none=ending(BEST))
    level_of = {made.spec(name).hash: name.partition("@")[2] for name in NAMES}
    made.cards = {name: {"name": name, "training": {"task_hashes": []}} for name in inside}

    def marks(card, spec, axis):
        assert axis == "width"
        return level_of[spec.hash] in inside[card["name"]]

    monkeypatch.setattr(gather, "inside_support", marks)
    results = made.run()
    mine = results.levels[results.levels.learner == "mine"]
    assert mine.inside_support.tolist() == [True, True, False, False]
    assert set(results.levels[results.levels.learner == "none"].inside_support) == {None}
    assert line(results.tasks, "mine", task="a@x4").inside_support is False
    assert results.gaps.learner.tolist() == ["mine", "twin"], "the others met one side only, or have no card"
    gap, null = (results.gaps.iloc[i] for i in (0, 1))
    assert (gap.inside_tasks, gap.outside_tasks) == (8, 8)
    assert gap.gap == pytest.approx(0.5, abs=0.01)
    assert gap.gap_low < gap.gap < gap.gap_high
    assert null.gap_low <= 0.0 <= null.gap_high
    assert null.gap == pytest.approx(0.0, abs=1e-12)


def test_bases_that_lack_a_level_are_left_out_and_named():
    made = world(mine=at(SCORES))
    made.tasks = tuple(name for name in NAMES if name != "b@x4")
    results = made.run()
    assert "mine by level of width: without b, not run at every level" in results.notes
    assert line(results.levels, "mine", level="x4").score == pytest.approx(0.25)
    assert line(results.summary, "mine").tasks == 15


def test_a_kind_that_runs_on_no_complete_base_has_no_levels():
    made = world(mine=at(SCORES), context=ending(BEST))
    made.kinds = {"context": "in_context"}
    made.can_run = {name: ("update_rule", "in_context") for name in NAMES if name.endswith("@x1")}
    results = made.run()
    assert "context" not in set(results.levels.learner)
    assert line(results.summary, "context").tasks == 4
    assert "context by level of width: without a, b, c, d, not run at every level" in results.notes


def test_an_axis_without_an_order_has_levels_but_no_branches():
    made = World(tasks=NAMES, levels=dict.fromkeys(LEVELS), learners={("mine", 0): at(SCORES)})
    results = made.run()
    levels = results.levels[results.levels.learner == "mine"]
    assert levels.factor.isna().all()
    assert levels.retention.tolist() == pytest.approx(list(SCORES.values()))
    assert results.branches.empty
    assert np.isfinite(results.summary.score).all()
