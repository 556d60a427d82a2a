"""Late generalisation over several reports: when each line fits a task's training examples, and when it does as well on held-out ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from metaopt.evaluation.overview.saved import SavedReport
from metaopt.evaluation.overview.tables import LINE
from metaopt.evaluation.reporting.cells import line_name
from metaopt.evaluation.scores.late_generalisation import late_generalisation

__all__ = ["LATE_FAMILIES", "late_steps"]

LATE_FAMILIES = ("modular_arithmetic",)  # those where generalising comes long after fitting


def late_steps(reports: Sequence[SavedReport]) -> pd.DataFrame:
    """Return the first steps at which the median over runs fits (`t_fit`) and generalises (`t_gen`), `inf` for never.

    One row a task of `LATE_FAMILIES` and line whose curves are in the report: learners, and baselines at their largest number of trials.
    Where levels of an axis make tasks, each level is one.
    """
    rows = [row for one in reports for row in _rows(one)]
    return pd.DataFrame(rows, columns=["suite", "task", *LINE, "t_fit", "t_gen"])


def _rows(report: SavedReport) -> list[dict[str, Any]]:
    targets, lines = report.tables["targets"], {line_name(line): line for line in report.tables["summary"][list(LINE)].to_dict("records")}
    rows = []
    for task in targets.task[targets.family.isin(LATE_FAMILIES)]:
        drawn: Mapping[str, Any] = report.curves.get(task, {}).get("lines", {})
        for label, curve in drawn.items():
            if label in lines:
                train, heldout = (_losses(curve[f"{kind}_median"]) for kind in ("train", "heldout"))
                found = late_generalisation(np.array(curve["steps"], dtype=np.float64), train, heldout)
                moments = {"t_fit": float(found.t_fit[0]), "t_gen": float(found.t_gen[0])}
                rows.append({"suite": report.suite, "task": task, **lines[label], **moments})
    return rows


def _losses(values: Sequence[float | str | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return one run's losses [E, 1]; what JSON could not spell is above every threshold."""
    return np.array([[value if isinstance(value, int | float) else np.inf] for value in values], dtype=np.float64)
