"""Tables as text: every number as it is, undefined ones as such, and no table for what was not measured."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metaopt.evaluation.reporting import tables
from metaopt.evaluation.reporting.cells import NOTHING, interval, line_name, number, pivot, share, told
from metaopt.evaluation.tables.results import make_table
from tests.evaluation import made_results as made


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.125, 2, "0.12"),
        (-0.001, 2, "0.00"),
        (-0.009, 2, "-0.01"),
        (3, 0, "3"),
        (None, 2, "-"),
        (np.nan, 2, "-"),
        (pd.NA, 2, "-"),
        (np.inf, 1, "inf"),
        (-np.inf, 1, "-inf"),
        (np.float32(0.5), 1, "0.5"),
    ],
)
def test_a_number_as_text(value, digits, text):
    assert number(value, digits) == text


def test_an_interval_needs_a_value():
    assert interval(made.interval("x", 0.5, 0.25), "x") == "0.50 [0.25, 0.75]"
    assert interval({"x": 6.0, "x_low": 3.0, "x_high": np.inf}, "x", 1) == "6.0 [3.0, inf]"
    assert interval({"x": np.nan, "x_low": 0.0, "x_high": 1.0}, "x") == NOTHING


def test_counts_names_and_flags():
    assert share(np.int64(3), 40.0) == "3/40"
    assert [told(value) for value in (True, np.bool_(False), 1, None, np.nan)] == ["yes", "no", "yes", "-", "-"]
    assert line_name({"learner": "a", "kind": "learner", "trials": 1}) == "a"
    assert line_name({"learner": "a", "kind": "baseline", "trials": 5}) == "a K=5"


def test_a_pivot_leaves_out_nothing():
    rows = pd.DataFrame([{"learner": "a", "kind": "learner", "trials": 1, "task": "t", "score": 0.5}])
    assert pivot(rows, "score", ["a", "b K=1"], ["t", "u"], 1) == [["t", "0.5", "-"], ["u", "-", "-"]]


def test_the_headline_has_a_row_a_line_and_learners_stand_out():
    first, more = tables.headline_tables(made.plain())
    assert [row[0] for row in first.rows] == [made.line_name(*key) for key in made.LINES]
    assert first.strong == more.strong == {0, 1, 2}
    assert first.rows[0][1] == interval(made.plain().summary.iloc[0], "score")
    assert first.rows[1][-1] == "6/40"
    assert first.rows[2][-2] == "6/40"
    assert more.folded
    assert not first.folded


def test_aggregates_that_nobody_has_are_no_column():
    results = made.small()
    _, with_all = tables.headline_tables(results)
    _, without = tables.headline_tables(replace(results, summary=results.summary.assign(constant_rate_speed_up=np.nan, algoperf=None)))
    assert set(with_all.columns) - set(without.columns) == {"constant-rate speed-up", "AlgoPerf"}


def test_tasks_have_a_row_each_in_the_order_of_the_report():
    found = tables.task_tables(made.plain())
    scores, *others, what = found
    assert [row[0] for row in scores.rows] == list(made.TASKS)
    assert scores.rows[made.TASKS.index("rnn")][2] == NOTHING, "what cannot run there"
    assert scores.rows[0][1] == number(made.plain().tasks.score[0])
    assert [table.folded for table in found] == [False, True, True, True, True, True]
    assert len(others) == 4
    assert what.rows[0][4] == NOTHING, "a task without a target"
    assert what.rows[1][6] == "adamw, lr 0.026"
    assert [row[-3:] for row in what.rows[:3]] == [("yes", "-", "-"), ("yes", "-", "-"), ("no", "-", "-")]


def test_a_long_table_of_tasks_is_folded():
    assert tables.task_tables(made.ordered())[0].folded


@pytest.mark.parametrize(
    ("reference", "text"),
    [("adamw@0.02612", "adamw, lr 0.026"), ("adamw@beta1=0.88,lr=0.02612,weight_decay=0.05", "adamw, lr 0.026"), ("prodigy", "prodigy")],
)
def test_a_reference_in_a_few_words(reference, text):
    assert tables.briefly(reference) == text


def test_contrasts_are_told_learner_by_learner():
    found = tables.contrast_tables(made.plain().contrasts)
    assert [table.caption for table in found] == list(made.LEARNERS)
    assert found[0].rows[0] == ("reference", "worse", "-0.20 [-0.26, -0.14]", "0.0160", "0.30 [0.25, 0.35]", "0.0040")
    assert [row[1] for row in found[0].rows] == ["worse", "worse", "worse", "better", "open"]
    doubtful = made.plain().contrasts.assign(p_holm=0.2)
    assert {row[1] for table in tables.contrast_tables(doubtful) for row in table.rows} == {
        "better by interval",
        "worse by interval",
        "open",
    }


def test_levels_tell_score_retention_and_support():
    score, kept, inside = tables.level_tables(made.ordered())
    assert score.columns == ("line", "x0.25", "x0.5", "x1", "x2", "x4", "x16")
    assert len(score.rows) == 11, "baselines at their smallest and largest number of trials"
    assert kept.rows[1][1:] == ["-"] * 6
    support = [["no", "yes", "yes", "yes", "no", "no"], ["yes", "yes", "yes", "no", "no", "no"], ["-"] * 6]
    assert [row[1:] for row in inside.rows] == support


def test_a_level_that_a_line_did_not_run_at_is_empty():
    results = made.ordered()
    fewer = results.levels[(results.levels.learner != "celo2-base") | (results.levels.level != "x0.25")]
    score, kept, inside = tables.level_tables(replace(results, levels=fewer))
    (mine,) = [row for row in score.rows if row[0] == "celo2-base"]
    assert mine[score.columns.index("x0.25")] == NOTHING
    assert len(kept.rows) == len(score.rows) == 11
    assert len(inside.rows) == 3


def test_break_points_may_be_infinite_or_undefined():
    rows = tables.branch_table(made.ordered().branches).rows
    assert rows[0][:3] == ("celo2-base", "up", "6.0 [3.5, inf]")
    assert rows[1][2] == "inf [inf, inf]"
    assert rows[2][2] == NOTHING
    assert (rows[0][-1], rows[1][-1]) == ("yes", "no")


def test_planning_tells_scores_by_both_horizons():
    whole, by_task = tables.planning_tables(made.ordered().planning)
    assert whole.columns == ("learner", "method", "planning horizon", "score", "tasks")
    assert [row[:3] for row in whole.rows][:2] == [("celo2-base", "celo2_base", "20"), ("<script>", "celo2_base", "1000")]
    assert whole.rows[0][3:] == ("0.80 [0.73, 0.87]", "3")
    assert by_task.columns[3:] == ("1000 steps", "5000 steps")
    assert by_task.rows[0][3:] == ("0.80 [0.73, 0.87]", "0.60 [0.53, 0.67]")
    assert by_task.folded


def test_planning_on_tasks_of_one_horizon_is_one_table_and_gaps_are_empty():
    planning = made.ordered().planning
    (one,) = tables.planning_tables(planning[planning.horizon_steps != 5000.0])
    assert len(one.rows) == 3
    lacking = planning[(planning.learner != "celo2-base") | (planning.horizon_steps != 5000.0)]
    assert tables.planning_tables(lacking)[1].rows[0][3:] == ("0.80 [0.73, 0.87]", NOTHING)


def test_tunability_has_a_column_a_budget():
    table = tables.tunability_table(made.plain().tunability)
    assert table.columns == ("baseline", *(f"{what}, K={k}" for what in ("loss", "score") for k in (1, 5, 15, 100)))
    assert table.rows[0][-1] == NOTHING, "100 trials were recorded, and none of them evaluated"
    partial = made.plain().tunability.query("baseline == 'adamw' or trials == 1")
    assert tables.tunability_table(partial).rows[1][2:5] == (NOTHING,) * 3


def test_gaps_and_failures():
    assert tables.gap_table(made.plain().gaps).rows == [("celo2-base", "0.21 [0.11, 0.31]", "5", "3")]
    rows = tables.failure_table(made.plain().failures).rows
    assert [row[1:] for row in rows] == [("byte_transformer_lm", "diverged", "3"), ("regression_tables", "diverged", "3")]


def test_costs_that_were_not_timed_are_not_told():
    ratios, steps = tables.cost_tables(made.TIMINGS)
    assert ratios.rows[1] == ("<script>", "2.00", "0.40")
    assert steps.rows[0] == ("autoencoder", "2", "4", "6", "8")
    assert tables.cost_tables({"seconds": 3.0, "workers": 0, "jobs": {}}) == []
    (only,) = tables.cost_tables(
        {"step_seconds": [{"task": "t", "line": "a", "seconds": 0.00123}, {"task": "u", "line": "b", "seconds": None}]}
    )
    assert only.rows == [("t", "1.23", "-"), ("u", "-", "-")]


def test_empty_tables_are_tables_too():
    assert tables.contrast_tables(make_table("contrasts", [])) == []
    assert list(tables.failure_table(make_table("failures", [])).rows) == []
