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
