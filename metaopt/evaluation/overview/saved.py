"""Reports as they lie on disk: what an overview takes from `report.json`, also from one that was copied from elsewhere."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from metaopt.errors import ConfigError
from metaopt.evaluation.tables.results import COLUMNS

__all__ = ["SavedReport", "read_report", "read_reports"]

READABLE = (2,)  # schema versions of report.json
_TABLES = ("summary", "tasks", "targets", "gaps", "levels", "branches")
_INFINITE = {"inf": math.inf, "-inf": -math.inf}
_TEXTS = {"learner", "kind", "task", "family", "template", "reference", "target_by", "kinds", "level", "direction"}


@dataclass(frozen=True)
class SavedReport:
    """What one suite's report says.

    Attributes:
        suite: its name.
        folder: where `report.json` lies.
        provenance: versions, seeds and hashes, as they were written.
        warnings: what stands above its tables.
        tables: by name, with the columns of `metaopt.evaluation.tables.results.COLUMNS`; undefined numbers are NaN.
        curves: task -> what is drawn for it, by label.
    """

    suite: str
    folder: Path
    provenance: Mapping[str, Any]
    warnings: list[str] = field(default_factory=list)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def axis(self) -> str | None:
        """Name of the axis that the suite goes along; None if it has no levels."""
        if self.tables["levels"].empty:
            return None
        found = self.provenance.get("axis")
        return str(found["name"] if isinstance(found, Mapping) else found or self.suite)


def read_reports(paths: Sequence[str | os.PathLike[str]]) -> list[SavedReport]:
    """Return the reports in the order given.

    Raises:
        ConfigError: see `read_report`; or two reports of one suite.
    """
    reports = [read_report(path) for path in paths]
    seen: dict[str, Path] = {}
    for one in reports:
        if one.suite in seen:
            raise ConfigError(
                f"suite {one.suite!r} is in two reports, {seen[one.suite]} and {one.folder}: an overview takes one of each suite;"
                " evaluate all learners together"
            )
        seen[one.suite] = one.folder
    return reports


def read_report(path: str | os.PathLike[str]) -> SavedReport:
    """Return the report in a folder, or of a `report.json`.

    Raises:
        ConfigError: no report there, one that is damaged, or one of another schema version.
    """
    file = Path(path)
    file = file / "report.json" if file.is_dir() else file
    try:
        content = json.loads(file.read_text("utf-8"))
        version = content["schema_version"]
        if version not in READABLE:
            raise ConfigError(f"report {str(file)!r} has schema_version {version!r}, can be read: {READABLE[0]}; evaluate again")
        provenance, results = content["provenance"], content["results"]
        tables = {name: _table(results.get(name, []), COLUMNS[name]) for name in _TABLES}
        return SavedReport(str(provenance["suite"]), file.parent, provenance, list(results["warnings"]), tables, results.get("curves", {}))
    except OSError as error:
        raise ConfigError(f"report {str(file)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"report {str(file)!r} is damaged or no report of an evaluation: {type(error).__name__} {error}") from error


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Return rows as a table: null becomes NaN in a column of numbers, the text `inf` infinity."""
    table = pd.DataFrame([{name: _value(name, row.get(name)) for name in columns} for row in rows], columns=list(columns))
    return table.astype({name: object for name in columns if name == "inside_support"})


def _value(name: str, value: Any) -> Any:
    if name in _TEXTS or name == "inside_support":
        return value
    if value is None:
        return math.nan
    return _INFINITE[value] if isinstance(value, str) else value
