"""Tables over several reports: every line once, far ends on both sides, families."""

import math

import pandas as pd
import pytest

from metaopt.evaluation.overview.saved import read_reports
from metaopt.evaluation.overview.tables import all_lines, family_scores, far_ends, shown_lines, stacked

from .saved_reports import LEARNER, LINES, TUNED, UNTUNED, content, ordered, save, unordered

OTHER = ("other", "learner", 1)


@pytest.fixture
def reports(tmp_path):
    return read_reports(save(tmp_path, content("quick"), ordered("width"), unordered("activation")))


def keys(table):
    return list(table[["learner", "kind", "trials"]].itertuples(index=False, name=None))


def test_tables_under_each_other_say_their_suite(reports):
    table = stacked(reports, "summary")
    assert table.columns[0] == "suite"
    assert table.groupby("suite", sort=False).size().to_dict() == {"quick": 4, "width": 4, "activation": 4}
    assert stacked(reports, "levels").suite.unique().tolist() == ["width", "activation"]


def test_a_table_that_no_report_has_keeps_its_columns(tmp_path):
    (one,) = read_reports(save(tmp_path, content("quick")))
    table = stacked([one], "branches")
    assert table.empty
    assert {"suite", "s50", "s50_low"} <= set(table.columns)


def test_lines_stand_once_learners_first(tmp_path):
    reports = read_reports(save(tmp_path, content("a", lines=(TUNED, LEARNER)), content("b", lines=(LEARNER, OTHER, UNTUNED))))
    assert keys(all_lines(reports)) == [LEARNER, OTHER, TUNED, UNTUNED]


def test_tables_show_baselines_at_their_largest_and_smallest_trials(reports):
    assert keys(shown_lines(all_lines(reports))) == [LEARNER, TUNED, UNTUNED]
    learners = pd.DataFrame([LEARNER], columns=["learner", "kind", "trials"])
    assert keys(shown_lines(learners)) == [LEARNER]


def test_far_ends_of_an_axis_with_factors(reports):
    ends = far_ends(reports)
    mine = ends[(ends.suite == "width") & (ends.learner == "mine")].set_index("direction")
    assert mine.loc["up", ["level", "factor", "inside_support"]].tolist() == ["x4", 4.0, False]
    assert mine.loc["down", ["level", "factor", "inside_support"]].tolist() == ["x0.5", 0.5, False]
    assert mine.loc["up", "retention"] == pytest.approx(0.25)
    assert mine.loc["down", "retention"] == pytest.approx(0.5)
    assert mine.loc["up", "s50"] == 3.0
    assert mine.loc["down", "s50"] == math.inf
    assert mine.axis.tolist() == ["width", "width"]
    assert len(ends[ends.suite == "width"]) == 2 * 3, "three lines have levels"


def test_the_far_end_of_an_axis_of_names_is_where_least_is_left(reports):
    ends = far_ends(reports)
    (mine,) = ends[(ends.suite == "activation") & (ends.learner == "mine")].to_dict("records")
    assert mine["level"] == "sine"
    assert pd.isna(mine["direction"])
    assert mine["retention"] == pytest.approx(0.4)
    assert math.isnan(mine["s50"])


def test_a_line_that_scores_nothing_at_home_has_no_far_end_on_an_axis_of_names(tmp_path):
    report = unordered("activation")
    for row in report["results"]["levels"]:
        row.update(retention=None, retention_low=None, retention_high=None)
    assert far_ends(read_reports(save(tmp_path, report))).empty


def test_an_axis_that_goes_one_way_only(tmp_path):
    report = ordered("horizon")
    report["results"]["levels"] = [row for row in report["results"]["levels"] if row["factor"] >= 1.0]
    report["results"]["branches"] = [row for row in report["results"]["branches"] if row["direction"] == "up"]
    assert far_ends(read_reports(save(tmp_path, report))).direction.unique().tolist() == ["up"]


def test_family_scores_leave_axes_out_and_average_tasks(tmp_path):
    targets = [{"task": "digits", "family": "images"}, {"task": "text", "family": "images"}]
    reports = read_reports(save(tmp_path, content("quick"), content("far", targets=targets), ordered("width")))
    table = family_scores(reports).set_index(["suite", "family", "learner", "trials"])
    assert set(table.index.get_level_values("suite")) == {"quick", "far"}
    assert table.loc["quick", "image_mlp", "mine", 1].score == 0.9
    assert table.loc["quick", "text_lm", "mine", 1].score == pytest.approx(0.8)
    assert table.loc["far", "images", "mine", 1].score == pytest.approx(0.85)
    assert table.loc["far", "images", "mine", 1].tasks == 2
    assert len(table) == 3 * len(LINES)


def test_a_family_is_inside_the_support_if_all_its_tasks_are(tmp_path):
    targets = [{"task": "digits", "family": "images"}, {"task": "text", "family": "images"}]
    table = family_scores(read_reports(save(tmp_path, content("quick"), content("far", targets=targets))))
    inside = {(row.suite, row.family): row.inside_support for row in table.itertuples() if row.learner == "mine"}
    assert inside == {("quick", "image_mlp"): True, ("quick", "text_lm"): False, ("far", "images"): False}
    assert {row.inside_support for row in table.itertuples() if row.kind == "baseline"} <= {None}


def test_no_suite_without_an_axis_no_families(tmp_path):
    assert family_scores(read_reports(save(tmp_path, ordered("width")))).empty
