"""The report of an evaluation: tables in Python, and a folder with JSON, Markdown, HTML and figures.

`report.json`, `rows.jsonl` and the figures have the same bytes for any number of workers. What depends on the clock is in `timings.json`,
and in the section on cost of `report.md` and `report.html`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from metaopt.evaluation.reporting.canvas import lines_of
from metaopt.evaluation.reporting.curve_figures import band_table
from metaopt.evaluation.reporting.figure_catalogue import catalogue, curves_name
from metaopt.evaluation.reporting.files import write_whole
from metaopt.evaluation.reporting.markdown import markdown_page
from metaopt.evaluation.reporting.page import Picture, html_page
from metaopt.evaluation.reporting.sections import document
from metaopt.evaluation.reporting.terminal import terminal_text
from metaopt.evaluation.reporting.verdict import verdicts
from metaopt.evaluation.tables.results import COLUMNS, Results, records

__all__ = ["FILES", "SCHEMA_VERSION", "Report", "write_report"]

SCHEMA_VERSION = 2
_FORMATS = ("png", "svg")
FILES = frozenset({"figures", "rows.jsonl", "timings.json", "report.md", "report.html", "report.json"})


@dataclass(frozen=True)
class Report:
    """What `metaopt.evaluate` returns; tables are described in `metaopt.evaluation.tables.results.Results`.

    Attributes:
        path: folder with the report's files.
        results: all tables, notes, curves and where they come from.
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
        """The headline: interquartile means with 95 % intervals, and counts; one row a line."""
        return self.results.summary

    @property
    def tasks(self) -> pd.DataFrame:
        """Medians over runs; one row a line and task."""
        return self.results.tasks

    @property
    def targets(self) -> pd.DataFrame:
        """What each task is, its target and its reference."""
        return self.results.targets

    @property
    def contrasts(self) -> pd.DataFrame:
        """Each learner against the reference and against every tuned baseline, with corrected p-values."""
        return self.results.contrasts

    @property
    def gaps(self) -> pd.DataFrame:
        """Score inside a learner's training support minus outside."""
        return self.results.gaps

    @property
    def score_profile(self) -> pd.DataFrame:
        """Share of runs above each score."""
        return self.results.score_profile

    @property
    def time_profile(self) -> pd.DataFrame:
        """Share of tasks solved within each multiple of the frozen baseline's time."""
        return self.results.time_profile

    @property
    def tunability(self) -> pd.DataFrame:
        """Loss and score of each baseline over the number of trials."""
        return self.results.tunability

    @property
    def levels(self) -> pd.DataFrame:
        """Score and retention at each level of the suite's axis; empty without one."""
        return self.results.levels

    @property
    def branches(self) -> pd.DataFrame:
        """Break points, slopes and areas on both sides of home; empty without factors."""
        return self.results.branches

    @property
    def planning(self) -> pd.DataFrame:
        """Score over the planning horizon of meta-training; empty unless learners differ in it."""
        return self.results.planning

    @property
    def failures(self) -> pd.DataFrame:
        """Failed runs by line, task and reason."""
        return self.results.failures

    @property
    def figures(self) -> list[str]:
        """Names that `plot` takes; tasks' names are taken too."""
        return list(catalogue(self.results))

    def text(self) -> str:
        """Return the headline for a terminal, at most 80 columns wide."""
        return terminal_text(self.results)

    def to_json(self) -> str:
        """Return the content of `report.json`."""
        return report_json(self.results)

    def plot(self, what: str = "headline", format: str = "png") -> bytes:
        """Return a figure.

        Args:
            what: a name of `figures`, or that of a task for its curves.
            format: `png` or `svg`.

        Raises:
            KeyError: no such figure.
            ValueError: no such format.
        """
        if format not in _FORMATS:
            raise ValueError(f"format must be one of {', '.join(_FORMATS)}, got {format!r}")
        known = catalogue(self.results)
        name = what if what in known else curves_name(what)
        if name not in known:
            raise KeyError(f"no figure {what!r}; there are {', '.join(known)}")
        return known[name].draw((format,))[format]


def write_report(results: Results, timings: Mapping[str, Any], folder: Path, quarantined: int = 0) -> Report:
    """Write all files of a report to `folder` and return it; `report.json` comes last, so a folder with it is complete.

    Args:
        results: the tables.
        timings: what depends on the clock: `seconds`, `workers`, `jobs`, and where measured `step_seconds`, `wall_clock`, `load_average`.
        folder: made if need be; figures of an earlier report in it are removed.
        quarantined: see `Report`.
    """
    known = catalogue(results)
    captions = {name: one.caption for name, one in known.items()}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    stale = {path for kind in _FORMATS for path in (folder / "figures").glob(f"*.{kind}")}
    pictures = {}
    for name, one in known.items():
        content = one.draw(_FORMATS)
        pictures[name] = Picture(one.caption, content["svg"])
        for kind in _FORMATS:
            write_whole(folder / "figures" / f"{name}.{kind}", content[kind])
    for path in stale - {folder / "figures" / f"{name}.{kind}" for name in known for kind in _FORMATS}:
        path.unlink()
    page = document(results, timings, list(known))
    colours = {line.learner: line.colour for line in lines_of(results.summary) if line.kind == "learner"}
    write_whole(folder / "rows.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in records(results.scores)).encode())
    write_whole(folder / "timings.json", (json.dumps(timings, indent=1) + "\n").encode())
    write_whole(folder / "report.md", markdown_page(page, captions).encode())
    write_whole(folder / "report.html", html_page(page, pictures, colours).encode())
    write_whole(folder / "report.json", report_json(results).encode())
    return Report(folder, results, quarantined)


def report_json(results: Results) -> str:
    """Return the results as strict JSON text with a schema version: every table but the runs', which are in `rows.jsonl`."""
    curves = {
        task: {
            "reference": one.reference,
            "lines": {label: _finite(band_table(curves)) for label, curves in (one.learners | one.baselines).items()},
        }
        for task, one in results.curves.items()
    }
    content = {
        "schema_version": SCHEMA_VERSION,
        "provenance": results.provenance,
        "results": {
            "verdicts": [asdict(verdict) for verdict in verdicts(results)],
            "warnings": results.warnings,
            "notes": results.notes,
            **{name: records(getattr(results, name)) for name in COLUMNS if name != "scores"},
            "curves": curves,
        },
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _finite(table: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return columns as JSON values: what a diverged run recorded may be no number."""
    return {name: [row[name] for row in records(pd.DataFrame({name: column}))] for name, column in table.items()}
