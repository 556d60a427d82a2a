"""Small multiples: the degradation curves of all axes side by side, for a page of a paper."""

import math
from collections.abc import Sequence

from metaopt.evaluation.overview.saved import SavedReport
from metaopt.evaluation.reporting.axis_figures import draw_axis
from metaopt.evaluation.reporting.canvas import Line, canvas, legend_below, legend_height, most_tuned, picture

__all__ = ["small_multiples"]

_COLUMNS = 3
_PANEL = (3.1, 2.5)  # inches, width and height


def small_multiples(measure: str, reports: Sequence[SavedReport], lines: Sequence[Line], formats: Sequence[str]) -> dict[str, bytes]:
    """Return one figure with a panel an axis, in the order of the reports, and one legend for all.

    Args:
        measure: `score` or `retention`.
        reports: of suites along an axis, at least one.
        lines: drawn where they have levels; see `lines_of`.
        formats: see `picture`.
    """
    columns = min(_COLUMNS, len(reports))
    rows = math.ceil(len(reports) / columns)
    named = most_tuned(lines)
    with canvas(rows * _PANEL[1] + legend_height(named), columns * _PANEL[0]) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, report in zip(panels, reports, strict=False):
            draw_axis(axes, measure, str(report.axis), report.tables["levels"], report.tables["branches"], lines)
            axes.set(title=str(report.axis), xlabel="")
        for axes in panels[len(reports) :]:
            axes.remove()
        for axes in panels[: len(reports) : columns]:
            axes.set(ylabel=measure)
        legend_below(figure, named)
        return picture(figure, formats)
