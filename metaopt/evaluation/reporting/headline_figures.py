"""Figures of the headline: every line with its interval, every line on every task, and what tuning buys."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from metaopt.evaluation.reporting.canvas import WIDTH, Line, canvas, label, legend_below, legend_height, most_tuned, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MEASURES", "headline_figure", "task_strip", "tunability_figure"]

MEASURES = {"score": "score (1: the reference)", "speed_up": "speed-up (1: the reference)"}
_WORST, _SAME, _BEST = 0.0, 1.0, 1.25  # scores at the ends and in the middle of the strip's colours


def headline_figure(summary: pd.DataFrame, lines: Sequence[Line], measures: Sequence[str], formats: Sequence[str]) -> dict[str, bytes]:
    """Return measures of every line with 95 % intervals, side by side, and a rule at 1, where the reference is."""
    with canvas(0.8 + 0.215 * len(lines), WIDTH + 2.9 * (len(measures) - 1)) as figure:
        panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        height = np.arange(len(lines))[::-1]
        for axes, measure in zip(panels, measures, strict=True):
            axes.axvline(1.0, color="#222222", linewidth=0.9, zorder=1)
            for line, y, row in zip(lines, height, summary.to_dict("records"), strict=True):
                _interval(axes, line, y, *(float(row[f"{measure}{end}"]) for end in ("", "_low", "_high")))
            axes.set(title=MEASURES[measure], ylim=(-0.6, len(lines) - 0.4))
            axes.grid(axis="y", visible=False)
        panels[0].set_yticks(height, [label(line.name, 22) for line in lines])
        for text, line in zip(panels[0].get_yticklabels(), lines, strict=True):
            text.set_fontweight("bold" if line.kind == "learner" else "normal")
        return picture(figure, formats)


def task_strip(tasks: pd.DataFrame, lines: Sequence[Line], order: Sequence[str], formats: Sequence[str]) -> dict[str, bytes]:
    """Return a field of colours, a row a task and a column a line: the median score, and a cross where runs failed.

    Args:
        tasks: rows of lines and tasks, with `score` and `failures`.
        lines: columns.
        order: names of the tasks, from above.
    """
    scores, failures = (np.full((len(order), len(lines)), np.nan) for _ in range(2))
    for j, line in enumerate(lines):
        mine = line.rows(tasks).set_index("task").reindex(order)
        scores[:, j], failures[:, j] = mine.score.astype(float), mine.failures.astype(float)
    with canvas(2.0 + 0.21 * len(order)) as figure:
        from matplotlib.colors import TwoSlopeNorm

        axes = figure.subplots()
        field = axes.pcolormesh(
            np.arange(len(lines) + 1) - 0.5,
            np.arange(len(order) + 1) - 0.5,
            np.ma.masked_invalid(scores),
            cmap="PuOr",
            norm=TwoSlopeNorm(_SAME, _WORST, _BEST),
            edgecolors="white",
            linewidth=0.8,
        )
        for (i, j), count in np.ndenumerate(failures):
            if np.isnan(scores[i, j]):
                axes.text(j, i, "-", ha="center", va="center", color="#999999")
            elif count > 0:
                axes.plot(j, i, "x", color="black", markersize=4.5, markeredgewidth=1.1)
        axes.set_yticks(range(len(order)), [label(task, 24) for task in order], fontsize=9)
        axes.set_xticks(range(len(lines)), [label(line.name, 16) for line in lines], rotation=90, fontsize=9)
        axes.set(ylim=(len(order) - 0.5, -0.5))
        axes.axvline(sum(line.kind == "learner" for line in lines) - 0.5, color="#222222", linewidth=1.2)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(field, ax=axes, location="top", extend="both", shrink=0.9, aspect=35, pad=0.02)
        bar.set_ticks([0.0, 0.5, 1.0, 1.25], labels=["0", "0.5", "1", "1.25"])
        bar.set_label("median score; x: runs failed", fontsize=9.5)
        bar.outline.set_visible(False)
        return picture(figure, formats)


def tunability_figure(tunability: pd.DataFrame, lines: Sequence[Line], formats: Sequence[str]) -> dict[str, bytes]:
    """Return the expected best held-out loss of each baseline over the number of trials that may be spent."""
    shown = [line for line in most_tuned(lines) if line.kind == "baseline" and (tunability.baseline == line.learner).any()]
    with canvas(2.4 + legend_height(shown)) as figure:
        axes = figure.subplots()
        for line in shown:
            rows = tunability[tunability.baseline == line.learner]
            axes.plot(rows.trials, rows.expected_loss.astype(float), **line.style | {"linewidth": 1.6}, marker=line.marker, markersize=4.5)
        axes.set_xscale("log")
        ticks = sorted(set(tunability.trials))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set(xlabel="trials K", title="expected best held-out loss")
        legend_below(figure, [replace(line, name=line.learner) for line in shown], marks=True)
        return picture(figure, formats)


def _interval(axes: "Axes", line: Line, y: float, value: float, low: float, high: float) -> None:
    if not np.isfinite(value):
        return
    axes.hlines(y, low, high, color=line.colour, linewidth=3.2 if line.kind == "learner" else 2.0, alpha=0.5)
    axes.plot(value, y, line.marker, color=line.colour, markersize=6.0 if line.kind == "learner" else 4.0, zorder=3)
