"""The figure of planning horizons: what a learner is worth over how far ahead its meta-training saw."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from metaopt.evaluation.reporting.canvas import Line, canvas, legend_below, legend_height, most_tuned, picture, shaded

__all__ = ["planning_figure"]

_SHADE = "#fdf0c8"
_APART = 0.09  # of the axis: what stands closer to the last label has none


def planning_figure(planning: pd.DataFrame, summary: pd.DataFrame, lines: Sequence[Line], formats: Sequence[str]) -> dict[str, bytes]:
    """Return score over planning horizon, one line a method, and the baselines at their largest number of trials as level lines.

    A method looks like its first learner in other figures. The span of the tasks' horizons is shaded.

    Args:
        planning: rows of method, learner, planning_steps, horizon_steps (NaN: all tasks) and score with its interval.
        summary: score of the baselines' lines.
        lines, formats: see `lines_of` and `picture`.
    """
    whole = planning[planning.horizon_steps.isna()]
    looks = {line.learner: line for line in lines if line.kind == "learner"}
    methods = [replace(looks[str(rows.learner.iloc[0])], name=str(name)) for name, rows in whole.groupby("method", sort=False)]
    baselines = [line for line in most_tuned(lines) if line.kind == "baseline"]
    with canvas(3.2 + legend_height([*methods, *baselines])) as figure:
        axes = figure.subplots()
        span = planning.horizon_steps.min(), planning.horizon_steps.max()
        axes.axvspan(*span, color=_SHADE, zorder=0, linewidth=2.0)
        for line in baselines:
            axes.axhline(float(line.rows(summary).score.iloc[0]), **line.style)
        for line in methods:
            rows = whole[whole.method == line.name].sort_values("planning_steps")
            x, value, low, high = (rows[name].to_numpy(dtype=np.float64) for name in ("planning_steps", "score", "score_low", "score_high"))
            axes.plot(x, value, **line.style, marker=line.marker, markersize=5.5)
            axes.vlines(x, low, high, color=line.colour, linewidth=1.6, alpha=0.5)
            shaded(axes, line, x, low, high)
        axes.axhline(1.0, color="#222222", linewidth=0.9, zorder=1)
        axes.set_xscale("log")
        ticks = _spread(sorted({int(steps) for steps in whole.planning_steps}))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set(title="score (1: the reference)", xlabel="planning horizon, inner steps")
        legend_below(figure, [*methods, *baselines], marks=True)
        return picture(figure, formats)


def _spread(values: Sequence[int]) -> list[int]:
    """Return the values whose labels do not run into each other on a logarithmic axis, the first one included."""
    kept, length = list(values[:1]), math.log(values[-1] / values[0])
    for value in values[1:]:
        if math.log(value / kept[-1]) >= _APART * length:
            kept.append(value)
    return kept
