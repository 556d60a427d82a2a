"""The overview as tables of text: who has a column, what a cell says."""

import pytest

from metaopt.evaluation.overview.pages import OUTSIDE, overview_document
from metaopt.evaluation.overview.saved import read_reports
from metaopt.evaluation.overview.tables import all_lines, shown_lines
from metaopt.evaluation.overview.write import combined

from .saved_reports import LEARNER, content, late, ordered, save, unordered


def document(folder, *contents, failures=()):
    reports = read_reports(save(folder, *contents))
    links = {one.suite: one.suite for one in reports}
    return overview_document(reports, links, combined(reports), shown_lines(all_lines(reports)), dict(failures), ["curve"])


def sections(made):
    return {section.heading: section for section in made.sections}


def table(made, heading, caption):
    """Return a table as row name -> column -> cell."""
    (found,) = [one for one in sections(made)[heading].tables if one.caption.startswith(caption)]
    labels = (
        len(found.columns) - len(found.rows[0]) + sum(column in ("suite", "axis", "far end", "family", "task") for column in found.columns)
    )
    return {" ".join(row[:labels]): dict(zip(found.columns[labels:], row[labels:], strict=True)) for row in found.rows}


@pytest.fixture
def made(tmp_path):
    return document(tmp_path, content("quick"), ordered("width"), unordered("activation"), late("far"))


def test_the_headline_has_intervals_for_learners_and_values_for_baselines(made):
    scores = table(made, "Headline", "Score")
    assert list(scores) == ["quick", "width", "activation", "far"]
    assert scores["quick"] == {"mine": "0.90 [0.85, 0.95]", "adamw K=15": "0.90", "adamw K=1": "0.90"}
    assert table(made, "Headline", "Speed-up")["quick"]["mine"] == "0.45 [0.40, 0.50]"
    assert table(made, "Headline", "Failed")["quick"] == {"mine": "2/40 [0.01, 0.17]", "adamw K=15": "2/40", "adamw K=1": "2/40"}
    assert list(table(made, "Headline", "Probability")["quick"]) == ["mine"]


def test_retention_marks_levels_outside_the_training_support(made):
    kept = table(made, "Degradation", "Retention")
    assert kept["width up to x4"] == {"mine": f"0.25{OUTSIDE} [0.20, 0.30]", "adamw K=15": "0.25", "adamw K=1": "0.25"}
    assert kept["width down to x0.5"]["mine"] == f"0.50{OUTSIDE} [0.45, 0.55]"


def test_an_axis_without_an_order_names_the_level_where_least_is_left(made):
    kept = table(made, "Degradation", "Retention")["activation least"]
    assert kept["mine"] == "0.40 at sine [0.35, 0.45]", "no mark: the card does not say"
    assert kept["adamw K=15"] == "1.00 at relu"
    assert kept["adamw K=1"] == "-", "it has no levels there"
    assert not any(row.startswith("activation") for row in table(made, "Degradation", "s50"))


def test_a_shift_that_nothing_reaches_is_more_than_the_farthest(made):
    shifts = table(made, "Degradation", "s50")
    assert shifts["width up to x4"]["mine"] == "3.0 [2.5, 3.5]"
    assert shifts["width down to x0.5"]["mine"] == ">2 [2.5, >2]"
    assert shifts["width down to x0.5"]["adamw K=15"] == ">2"
    assert table(made, "Degradation", "Slope")["width up to x4"]["mine"] == "-0.38 [-0.42, -0.33]"


def test_gaps_families_and_late_generalisation(made):
    assert table(made, "Inside and outside the training support", "Score inside")["quick"] == {"mine": "0.20 [0.15, 0.25]"}
    families = table(made, "Task families", "Score")
    assert families["quick image_mlp"]["mine"] == "0.90"
    assert families["quick text_lm"]["mine"] == f"0.80{OUTSIDE}"
    assert "width image_mlp" not in families
    assert table(made, "Late generalisation", "t_fit")["far plus"] == {"mine": "20", "adamw K=15": "10"}
    assert table(made, "Late generalisation", "t_gen")["far plus"] == {"mine": "80", "adamw K=15": "never"}


def test_sections_without_anything_are_left_out(tmp_path):
    made = document(tmp_path, content("quick", gaps=[]))
    assert list(sections(made)) == ["Headline", "Task families", "Reports", "How to read this"]
    assert made.title == "Meta-generalization on one suite: mine"


def test_reports_are_linked_and_described(made):
    section = sections(made)["Reports"]
    assert section.links == [(name, name) for name in ("quick", "width", "activation", "far")]
    assert section.tables[0].rows[1] == ("width", "width", "2", "5", "cpu", "0.1", "2.13")


def test_a_report_may_lack_what_the_table_of_reports_shows(tmp_path):
    report = content("quick")
    report["provenance"] = {"suite": "quick"}
    assert sections(document(tmp_path, report))["Reports"].tables[0].rows == [("quick", "-", "2", "-", "-", "-", "-")]


def test_failures_and_warnings_of_suites_stand_above(tmp_path):
    other = content("width", warnings=["Under-covered: 1 meta-seed and 3 tasks."])
    made = document(tmp_path, content("quick"), other, content("standard"), failures={"far": "TaskError: changed"})
    assert made.warnings == [
        "quick, standard: Under-covered: 1 meta-seed and 2 tasks.",
        "width: Under-covered: 1 meta-seed and 3 tasks.",
        "far failed and is missing here: TaskError: changed",
    ]


def test_a_learner_that_is_missing_from_a_suite_leaves_a_gap(tmp_path):
    other = ("other", "learner", 1)
    made = document(tmp_path, content("a", lines=(LEARNER,)), content("b", lines=(other,)))
    scores = table(made, "Headline", "Score")
    assert (scores["a"]["other"], scores["b"]["mine"]) == ("-", "-")
    assert made.title == "Meta-generalization on 2 suites: mine, other"


def test_undefined_numbers_are_dashes(tmp_path):
    report = ordered("width", s50=None)
    for row in report["results"]["levels"]:
        row.update(retention=None, retention_low=None, retention_high=None)
    made = document(tmp_path, report)
    assert set(table(made, "Degradation", "Retention")["width up to x4"].values()) == {"-"}
    assert set(table(made, "Degradation", "s50")["width up to x4"].values()) == {"-"}
