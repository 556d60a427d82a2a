"""Sentences follow from numbers by rules, and never say more than these allow."""

from dataclasses import replace

import numpy as np
import pytest

from metaopt.evaluation.reporting.verdict import axis_name, decision, verdicts
from metaopt.evaluation.tables.results import make_table
from tests.evaluation import made_results as made


def contrast(value, width=0.05, p_holm=0.01, against="reference"):
    return (
        {"learner": "celo2-base", "against": against, "p_value": p_holm, "p_holm": p_holm}
        | made.interval("difference", value, width)
        | made.interval("improvement", 0.5, 0.1)
    )


def told(*contrasts, scores=None, **tables):
    """The verdict on celo2-base with these contrasts, and with these scores on its tasks."""
    results = made.small()
    tasks = results.tasks
    if scores is not None:
        tasks = make_table(
            "tasks", [{**results.tasks.iloc[0].to_dict(), "task": f"t{i}", "score": score} for i, score in enumerate(scores)]
        )
    return verdicts(replace(results, contrasts=make_table("contrasts", contrasts), tasks=tasks, **tables))[0]


@pytest.mark.parametrize(
    ("value", "width", "p_holm", "expected"),
    [
        (0.2, 0.1, 0.01, "better"),
        (-0.2, 0.1, 0.05, "worse"),
        (0.2, 0.1, 0.051, "better?"),
        (-0.2, 0.1, 1.0, "worse?"),
        (0.2, 0.1, None, "better?"),
        (0.2, 0.1, np.nan, "better?"),
        (0.2, 0.2, 0.01, "open"),
        (-0.2, 0.3, 0.01, "open"),
        (0.0, 0.0, 0.01, "open"),
        (np.nan, np.nan, 0.01, "open"),
    ],
)
def test_a_decision_needs_an_interval_and_a_corrected_p(value, width, p_holm, expected):
    assert decision(contrast(value, width, p_holm)) == expected


def test_the_sentence_of_a_learner_that_loses():
    assert told(contrast(-0.2), scores=[0.9, 1.0, 0.3, 0.999]).sentence == (
        "celo2-base reaches the final loss of the best tuned baseline on 1 of 4 tasks; "
        "overall it is worse: score difference -0.20 [-0.25, -0.15]."
    )


def test_the_sentence_of_a_learner_that_wins():
    assert told(contrast(0.2), scores=[1.1, 1.0]).sentence == (
        "celo2-base reaches the final loss of the best tuned baseline on all 2 tasks; "
        "overall it is better: score difference +0.20 [0.15, 0.25]."
    )


def test_what_is_not_decided_is_not_said():
    open_one = told(contrast(0.2, width=0.3), scores=[1.1, 0.2]).sentence
    assert "overall the runs do not tell the two apart: score difference +0.20 [-0.10, 0.50]." in open_one
    leaning = told(contrast(0.2, p_holm=0.1), scores=[1.1, 0.2]).sentence
    assert "overall it is better by the interval, but not by the corrected test (Holm p = 0.10): score difference" in leaning
    assert "it is worse by the interval, but" in told(contrast(-0.2, p_holm=0.1), scores=[1.1, 0.2]).sentence


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([0.2, 0.3], "on none of 2 tasks."),
        ([1.0], "reaches the final loss of the best tuned baseline on its only task."),
        ([0.1], "does not reach"),
    ],
)
def test_tasks_are_counted_in_words(scores, words):
    assert words in told(scores=scores).sentence


def test_tasks_without_a_score_are_not_reached():
    assert "on 1 of 2 tasks" in told(scores=[np.nan, 1.2]).sentence


def test_baselines_are_sorted_by_what_is_decided():
    rows = [contrast(-0.2, against="adamw K=15"), contrast(-0.3, against="nadam K=15"), contrast(0.2, against="sgd K=15")]
    rows += [contrast(0.2, p_holm=0.4, against="lion K=15"), contrast(0.0, against="adam K=15")]
    assert told(*rows).details[0] == (
        "By score it is better than sgd K=15 (+0.20); worse than adamw K=15 (-0.20) and nadam K=15 (-0.30); "
        "better by the interval alone than lion K=15 (+0.20); not clearly different from adam K=15 (0.00)."
    )


@pytest.mark.parametrize(("value", "width", "word"), [(0.5, 0.1, "slower"), (1.5, 0.1, "faster"), (1.05, 0.1, "about as fast")])
def test_speed_is_told_by_its_interval(value, width, word):
    results = made.small()
    summary = results.summary.assign(**made.interval("speed_up", value, width), censored=0)
    assert any(detail.endswith(f"times its steps: it is {word}.") for detail in told(summary=summary).details)
    cut = told(summary=summary.assign(censored=3)).details
    assert any("3 of 10 runs were better than the reference ever gets" in detail for detail in cut)


def test_a_learner_that_goes_nowhere_has_no_speed():
    summary = made.small().summary.assign(**made.interval("speed_up", 0.0, 0.0))
    found = told(summary=summary).details
    assert "Speed-up 0.00 [0.00, 0.00]: the middle half of its runs failed, or ended no lower than it began." in found


def test_failures_are_counted():
    ruined = told(summary=made.small().summary.assign(failures=10)).details
    assert ruined[-1] == "All of its 10 runs failed."
    found = verdicts(made.plain())
    assert found[0].details[-1] == "None of its 40 runs failed."
    assert found[2].details[-1] == "6 of 40 runs failed."


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.3, "clearly lower than inside"), (-0.3, "clearly higher than inside"), (0.05, "not clearly different from inside")],
)
def test_the_gap_is_told_by_its_interval(value, words):
    gaps = make_table("gaps", [{"learner": "celo2-base", "inside_tasks": 5, "outside_tasks": 3} | made.interval("gap", value, 0.1)])
    (line,) = [detail for detail in told(gaps=gaps).details if "training support" in detail]
    assert words in line


def test_an_axis_says_where_it_breaks():
    falls, hopeless, holds = (verdict.details[0] for verdict in verdicts(made.ordered()))
    assert (
        falls
        == "Along width it keeps least at x16: 0.28 [0.18, 0.38] of its score at home. Half of that is gone at home times 6.0 [3.5, inf]."
    )
    assert hopeless == "Along width nothing can be said about what it keeps, for at home it has no positive score."
    assert holds.endswith("of its score at home. Half of that is gone nowhere.")


def test_an_axis_without_an_order_has_no_break_point():
    assert verdicts(made.unordered())[0].details[0] == "Along activation it keeps least at sine: 0.48 [0.38, 0.58] of its score at home."


def test_the_axis_may_be_named_in_short():
    results = made.ordered()
    assert axis_name(results) == "width"
    assert axis_name(replace(results, provenance={**results.provenance, "axis": "depth"})) == "depth"
    assert axis_name(replace(results, provenance={"suite": "x"})) == "the axis"


def test_baselines_get_no_verdict():
    assert [verdict.learner for verdict in verdicts(made.plain())] == list(made.LEARNERS)
