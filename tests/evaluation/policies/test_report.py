"""Texts, files and figures of an evaluation."""

import dataclasses

import numpy as np
import pytest

from metaopt.evaluation.policies import figures as policy_figures
from metaopt.evaluation.policies import report_text, write_report
from metaopt.evaluation.policies.figures import figures
from metaopt.evaluation.policies.rows import WIDE_COSINE

PNG = b"\x89PNG"


def test_the_text_fits_and_says_what_the_tables_say(kept):
    text = report_text(kept)
    assert max(map(len, text.splitlines())) <= 120
    assert "## small: 2 tasks, 4 runs" in text
    assert "beats" in text
    assert text.count("\n| policy  ") == 2
    assert "cannot be scored" not in text
    cosine = kept.rewards[(kept.rewards.family == "all") & (kept.rewards.who == WIDE_COSINE)].iloc[0]
    assert f"{cosine.wins:.0%} [{100 * cosine.wins_low:.0f} {100 * cosine.wins_high:.0f}]" in text
    assert "Steps to equal loss, cosine, best of 7 rates: " in text
    row = kept.factors[(kept.factors.family == "all") & (kept.factors.against == "AdamW 0.001")].iloc[0]
    assert f"Steps to equal loss, AdamW 0.001: {row.factor:.2f} [" in text


def test_the_widest_rows_fit(kept):
    columns = [name for name in kept.rewards if name.startswith(("reward", "low", "high", "ahead"))]

    def wide(table):
        return table.assign(**dict.fromkeys(columns, -9.87))

    names = {"quadratic": "tabular_classification"}
    tables = {name: getattr(kept, name).replace(names) for name in ("rewards", "comparison", "factors")}
    found = dataclasses.replace(kept, **tables | {"rewards": wide(tables["rewards"])})
    assert max(map(len, report_text(found).splitlines())) <= 120
    assert "| tabular_classification |" in report_text(found)


def test_without_other_budgets_there_are_no_ratios(kept):
    text = report_text(dataclasses.replace(kept, factors=kept.factors[:0]))
    assert "x best" not in text
    assert "Steps to equal loss" not in text


def test_rejected_tasks_are_counted(kept):
    rejected = {"small": {"default": {"flat": 2, "poor": 1}, "best_constant": {"flat": 1}}}
    text = report_text(dataclasses.replace(kept, rejected=rejected))
    assert "3 tasks cannot be scored beside AdamW at 0.001, 1 beside its best rate" in text


def test_axes_show_every_rate(kept, monkeypatch):
    drawn, panel = [], policy_figures._rate_panel

    def kept_panel(axes, *rest):
        panel(axes, *rest)
        drawn.append(axes.get_ylim())

    rates = kept.trajectories.assign(lr=kept.trajectories.lr * np.where(kept.trajectories.progress > 0.5, 1e-6, 1e3))
    monkeypatch.setattr(policy_figures, "_rate_panel", kept_panel)
    figures(dataclasses.replace(kept, trajectories=rates))
    assert len(drawn) == 2
    assert all(low < rates.lr.min() and high > rates.lr.max() for low, high in drawn)


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
