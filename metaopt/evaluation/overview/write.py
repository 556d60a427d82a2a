"""The overview over the reports of several suites: JSON, Markdown, one HTML file, and the degradation curves as small multiples."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from metaopt.errors import ConfigError
from metaopt.evaluation.overview.late import late_steps
from metaopt.evaluation.overview.multiples import small_multiples
from metaopt.evaluation.overview.pages import overview_document
from metaopt.evaluation.overview.saved import SavedReport, read_reports
from metaopt.evaluation.overview.tables import all_lines, family_scores, far_ends, shown_lines, stacked
from metaopt.evaluation.reporting.axis_figures import axis_figure
from metaopt.evaluation.reporting.canvas import lines_of
from metaopt.evaluation.reporting.files import write_whole
from metaopt.evaluation.reporting.markdown import markdown_page
from metaopt.evaluation.reporting.page import Picture, html_page
from metaopt.evaluation.tables.results import records

__all__ = ["SCHEMA_VERSION", "Overview", "combined", "overview"]

SCHEMA_VERSION = 1
_FORMATS = ("png", "svg")
_ALONE, _TOGETHER = "degradation-", "small-multiples-"  # figures of one axis, and of all
_CAPTIONS = {
    "score": "Score along {axis} with 95 % intervals. Filled marks: trained for this level, open: not, grey: unknown.",
    "retention": "Retention along {axis}: the score over that at home. Stars: where a learner falls below one half.",
}


@dataclass(frozen=True)
class Overview:
    """What `overview` returns.

    Attributes:
        path: folder with its files.
        tables: DataFrames over all suites: `headline` and `levels`, `branches`, `gaps` (as in a report, with the suite in front),
            `far_ends` (a line, axis and direction), `families` (a line on a family) and `late` (first steps that fit and generalise, a
            line on a task).
        failures: suite -> why it has no report.
    """

    path: Path
    tables: dict[str, pd.DataFrame]
    failures: dict[str, str]

    def text(self) -> str:
        """Return `overview.md`."""
        return (self.path / "overview.md").read_text("utf-8")


def overview(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], failures: Mapping[str, str] | None = None) -> Overview:
    """Write and return the overview of several reports; it depends on their `report.json` only, and on where they lie.

    Args:
        paths: folders of reports, or their `report.json`; at least one, one a suite. They may come from another machine.
        out: folder for `overview.json`, `overview.md`, `overview.html` and `figures`; created if need be, an earlier overview is replaced.
        failures: suites that have no report, and why: named in the overview.

    Raises:
        ConfigError: nothing to read, a report that cannot be read, or two of one suite; nothing has been written.
    """
    if not paths:
        raise ConfigError("an overview needs at least one report, got none")
    reports, folder, missing = read_reports(paths), Path(out), dict(failures or {})
    tables = combined(reports)
    figures = _figures(reports)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for stale in (folder / "figures").iterdir():  # of the overview that this one replaces
        if stale.name.startswith((_ALONE, _TOGETHER)):
            stale.unlink()
    for name, (_, drawn) in figures.items():
        for form, content in drawn.items():
            write_whole(folder / "figures" / f"{name}.{form}", content)
    alone, together = ([name for name in figures if name.startswith(start)] for start in (_ALONE, _TOGETHER))
    captions = {name: caption for name, (caption, _) in figures.items()}
    shown = shown_lines(all_lines(reports))
    pages, texts = ({one.suite: _link(folder, one, form) for one in reports} for form in ("html", "md"))
    markdown = markdown_page(overview_document(reports, texts, tables, shown, missing, together), captions)
    pictures = {name: Picture(captions[name], figures[name][1]["svg"]) for name in alone}
    page = html_page(overview_document(reports, pages, tables, shown, missing, alone), pictures, {})
    write_whole(folder / "overview.md", markdown.encode())
    write_whole(folder / "overview.html", page.encode())
    write_whole(folder / "overview.json", _json(folder, reports, tables, missing).encode())
    return Overview(folder, tables, missing)


def combined(reports: Sequence[SavedReport]) -> dict[str, pd.DataFrame]:
    """Return the tables over all reports, as in `Overview.tables`."""
    found = {"headline": stacked(reports, "summary"), **{name: stacked(reports, name) for name in ("levels", "branches", "gaps")}}
    return found | {"far_ends": far_ends(reports), "families": family_scores(reports), "late": late_steps(reports)}


def _figures(reports: Sequence[SavedReport]) -> dict[str, tuple[str, dict[str, bytes]]]:
    """Return the figures of all axes by name, each with its caption: both measures of each axis, and all axes together."""
    lines, found = lines_of(all_lines(reports)), {}
    for measure, caption in _CAPTIONS.items():
        drawable = [one for one in reports if one.tables["levels"][measure].notna().any()]
        for one in drawable:
            name = _ALONE + quote(f"{one.suite}-{measure}", safe="")
            drawn = axis_figure(measure, str(one.axis), one.tables["levels"], one.tables["branches"], lines, _FORMATS)
            found[name] = (caption.format(axis=one.axis), drawn)
        if drawable:
            found[_TOGETHER + measure] = (caption.format(axis="every axis"), small_multiples(measure, drawable, lines, _FORMATS))
    return found


def _json(folder: Path, reports: Sequence[SavedReport], tables: Mapping[str, pd.DataFrame], failures: Mapping[str, str]) -> str:
    content = {
        "schema_version": SCHEMA_VERSION,
        "reports": [
            {
                **{"suite": one.suite, "axis": one.axis, "report": _link(folder, one, "json")},
                **{"warnings": one.warnings, "provenance": one.provenance},
            }
            for one in reports
        ],
        "failures": dict(failures),
        "results": {name: records(table) for name, table in tables.items()},
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _link(folder: Path, report: SavedReport, form: str) -> str:
    """Return where a report's page is, relative to the overview; its JSON file if only that was copied."""
    page = report.folder / f"report.{form}"
    found = page if page.is_file() else report.folder / "report.json"
    return Path(os.path.relpath(found.resolve(), folder.resolve())).as_posix()
