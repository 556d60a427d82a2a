"""Texts, files and figures of an evaluation."""

import dataclasses

import pytest

from metaopt.evaluation.policies import report_text, write_report
from metaopt.evaluation.policies.figures import figures

PNG = b"\x89PNG"


def test_the_text_fits_and_says_what_the_tables_say(kept):
    text = report_text(kept)
    assert max(map(len, text.splitlines())) <= 100
    assert "## small: 2 tasks, 4 runs" in text
    assert "beats" in text
    assert text.count("\n| policy  ") == 1
    row = kept.factors[(kept.factors.family == "all") & (kept.factors.against == "AdamW 0.001")].iloc[0]
    assert f"Steps to equal loss, AdamW 0.001: {row.factor:.2f} [" in text


def test_the_widest_rows_fit(kept):
    columns = ("reward", "low", "high", "ahead", "ahead_low", "ahead_high")

    def wide(table):
        return table.assign(**dict.fromkeys(columns, -9.87))

    names = {"quadratic": "tabular_classification"}
    tables = {name: getattr(kept, name).replace(names) for name in ("rewards", "comparison", "factors")}
    found = dataclasses.replace(kept, **tables | {"rewards": wide(tables["rewards"])})
    assert max(map(len, report_text(found).splitlines())) <= 100
    assert "| tabular_classific~ |" in report_text(found)


def test_without_other_budgets_there_are_no_ratios(kept):
    text = report_text(dataclasses.replace(kept, factors=kept.factors[:0]))
    assert "x best cosine" not in text
    assert "Steps to equal loss" not in text


def test_rejected_tasks_are_counted(kept):
    assert "3 tasks cannot be scored" in report_text(dataclasses.replace(kept, rejected={"small": {"flat": 2, "poor": 1}}))


@pytest.mark.slow
def test_figures_are_the_same_again(kept):
    assert figures(kept) == figures(kept)


def test_everything_is_written(kept, tmp_path):
    written = write_report(kept, tmp_path / "report")
    assert {path.name for path in written} == {
        "results.json",
        "runs.csv",
        "equal.csv",
        "trajectories.csv",
        "report.md",
        "steps_small.png",
        "rewards_small.png",
        "rates_small.png",
    }
    assert all(path.read_bytes().startswith(PNG) for path in written if path.suffix == ".png")
