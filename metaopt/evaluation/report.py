"""The report of an evaluation: tables in Python, and a folder with JSON, Markdown, HTML and PNG.

`report.json` and `rows.jsonl` have the same bytes for any number of workers; `timings.json` holds what depends on the clock.
"""

import json
import os
import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from metaopt.baselines import Curves
from metaopt.evaluation.figures import band_table, curve_figure, headline_figure
from metaopt.evaluation.page import Table, headline_table, html_page, markdown_page
from metaopt.evaluation.resampling import under_covered
from metaopt.evaluation.summary import text_table
from metaopt.tasks import TaskSpec

__all__ = ["SCHEMA_VERSION", "Report", "Results", "TaskCurves", "write_report"]

SCHEMA_VERSION = 1
_LEGEND = (
    "IQM [95 %] over {runs} runs a line; speed-up over the best scheduled baseline;\n"
    "K: trials; cens.: speed-ups cut at 4; fail: failed runs."
)


@dataclass(frozen=True)
class TaskCurves:
    """What is drawn for one task: its reference (`baseline@rate`) and curves by label."""

    spec: TaskSpec
    reference: str
    learners: dict[str, Curves] = field(default_factory=dict)
    baselines: dict[str, Curves] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """Everything in a report that does not depend on the clock."""

    provenance: dict[str, Any]
    scores: pd.DataFrame
    summary: pd.DataFrame
    notes: list[str]
    curves: dict[str, TaskCurves]

    @property
    def warnings(self) -> list[str]:
        """What stands above the table."""
        tasks, meta_seeds = len(self.curves), int(self.provenance["meta_seeds"])
        if not under_covered(meta_seeds, tasks):
            return []
        return [
            f"Under-covered: {meta_seeds} meta-seed and {tasks} tasks; 95 % intervals here hold less than 95 % (a headline needs 5 and 10)."
        ]


@dataclass(frozen=True)
class Report:
    """What `metaopt.evaluate` returns.

    Attributes:
        path: folder with the report's files.
        scores: one row a run.
        summary: the headline, one row a learner and a baseline at each number of trials.
        quarantined: jobs that were given up; their runs count as failures.
    """

    path: Path
    results: Results
    quarantined: int = 0

    @property
    def scores(self) -> pd.DataFrame:
        """One row a run: scores, flags, seeds and hashes."""
        return self.results.scores

    @property
    def summary(self) -> pd.DataFrame:
        """The headline: interquartile means with 95 % intervals, and counts."""
        return self.results.summary

    def text(self) -> str:
        """Return the headline for a terminal, at most 80 columns wide."""
        legend = _LEGEND.format(runs=self.summary.runs.max())
        return "\n".join([text_table(self.summary), "", legend, *(textwrap.fill(warning, 80) for warning in self.results.warnings)])

    def to_json(self) -> str:
        """Return the content of `report.json`."""
        return report_json(self.results)

    def plot(self, task: str | None = None, kind: str = "heldout") -> bytes:
        """Return a PNG: the headline with intervals, or the curves (`heldout` or `train`) of one task.

        Raises:
            KeyError: no such task.
        """
        if task is None:
            return headline_figure(self.summary)
        return _curve_png(task, self.results.curves[task], kind)


def write_report(results: Results, timings: Mapping[str, Any], folder: Path, quarantined: int = 0) -> Report:
    """Write all files of a report to `folder` and return it; `report.json` comes last, so a folder with it is complete."""
    figures = {"headline": headline_figure(results.summary)}
    figures |= {
        f"{name}-{kind}": _curve_png(name, curves, kind) for name, curves in results.curves.items() for kind in ("heldout", "train")
    }
    title = f"Meta-generalization on suite {results.provenance['suite']}: {', '.join(results.provenance['learners'])}"
    tables = {"Headline": headline_table(results.summary), "Final loss by task (median over seeds)": _task_table(results)}
    page = (results.warnings, results.notes, results.provenance)
    learners = int((results.summary.kind == "learner").sum())
    (folder / "curves").mkdir(parents=True, exist_ok=True)
    for stale in (folder / "curves").glob("*.png"):  # of the report that this one replaces
        stale.unlink()
    for name, content in figures.items():
        _write(folder / ("headline.png" if name == "headline" else f"curves/{name}.png"), content)
    _write(folder / "rows.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in _records(results.scores)).encode())
    _write(folder / "timings.json", (json.dumps(timings, indent=1) + "\n").encode())
    _write(folder / "report.md", markdown_page(title, tables, *page).encode())
    _write(folder / "report.html", html_page(title, tables, learners, *page, figures).encode())
    _write(folder / "report.json", report_json(results).encode())
    return Report(folder, results, quarantined)


def report_json(results: Results) -> str:
    """Return the results as JSON text with a schema version."""
    tasks = {
        name: {
            "reference": one.reference,
            "curves": {label: band_table(curves) for label, curves in (one.learners | one.baselines).items()},
        }
        for name, one in results.curves.items()
    }
    content = {
        "schema_version": SCHEMA_VERSION,
        "provenance": results.provenance,
        "results": {"warnings": results.warnings, "summary": _records(results.summary), "notes": results.notes, "tasks": tasks},
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _task_table(results: Results) -> Table:
    """Return the median final loss of every line on every task, and each task's reference: its optimizer and rate."""
    medians = results.scores.groupby(["learner", "trials", "task"]).final_loss.median()
    lines = list(results.summary[["learner", "kind", "trials"]].itertuples(index=False, name=None))
    names = [learner if kind == "learner" else f"{learner} K={trials}" for learner, kind, trials in lines]
    rows = [
        (task, _optimizer_and_rate(one.reference), *(f"{medians[learner, trials, task]:.4f}" for learner, _, trials in lines))
        for task, one in results.curves.items()
    ]
    return ("task", "reference", *names), rows


def _optimizer_and_rate(reference: str) -> str:
    """Return `adamw, lr 0.03` of `adamw@lr=0.03,beta1=...` or `adamw@0.03`."""
    name, _, settings = reference.partition("@")
    rate = dict(part.partition("=")[::2] for part in settings.split(",")).get("lr", settings)
    return f"{name}, lr {float(rate):.2g}"


def _curve_png(name: str, curves: TaskCurves, kind: str) -> bytes:
    return curve_figure(f"{name} ({curves.spec.template})", curves.learners, curves.baselines, kind)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON values: numpy scalars become Python's, missing ones null."""
    return [{key: None if value is None or value != value else value for key, value in row.items()} for row in table.to_dict("records")]


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # mkstemp keeps others out; a report is for reading
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
