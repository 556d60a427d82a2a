"""Figures of an axis: score and retention over its levels, with the training support marked level by level."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from metaopt.evaluation.reporting.canvas import Line, canvas, label, legend_below, legend_height, most_tuned, picture, shaded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["axis_figure", "draw_axis"]

_TITLES = {"score": "score (1: the reference)", "retention": "retention: score over that at home"}
_SHADE = "#fdf0c8"


def axis_figure(
    measure: str, axis: str, levels: pd.DataFrame, branches: pd.DataFrame, lines: Sequence[Line], formats: Sequence[str]
) -> dict[str, bytes]:
    """Return score or retention of every line over the levels of an axis.

    Learners are strong with their intervals, baselines muted, and paler at their smallest number of trials. Filled marks are levels inside
    a learner's training support, open ones outside, grey ones where that is not known; levels that are inside for every learner that says
    so are shaded.

    Args:
        measure: `score` or `retention`.
        axis: its name.
        levels: rows of learner, kind, trials, level, factor, inside_support and the measure with its interval. Without factors the axis
            has no order, and levels stand side by side.
        branches: rows with `direction` and `s50` of each line; may be empty.
        lines, formats: see `lines_of` and `picture`.
    """
    lines = _on_axis(measure, levels, lines)
    named = most_tuned(lines) if lines else []
    with canvas(3.2 + legend_height(named)) as figure:
        axes = figure.subplots()
        draw_axis(axes, measure, axis, levels, branches, lines)
        axes.set(title=f"{axis}: {_TITLES[measure]}")
        legend_below(figure, named, marks=not _ordered(levels))
        return picture(figure, formats)


def draw_axis(axes: "Axes", measure: str, axis: str, levels: pd.DataFrame, branches: pd.DataFrame, lines: Sequence[Line]) -> None:
    """Draw one panel of what `axis_figure` shows, without title and legend; call it inside a `canvas`."""
    lines = _on_axis(measure, levels, lines)
    if _ordered(levels):
        _over_factors(axes, measure, axis, levels, branches, lines)
    else:
        _side_by_side(axes, measure, levels, lines)
    axes.axhline(1.0, color="#222222", linewidth=0.9, zorder=1)
    if measure == "retention":
        axes.axhline(0.5, color="#222222", linewidth=0.7, linestyle=":", zorder=1)
    low, high = levels[measure].astype(float).min(), levels[measure].astype(float).max()
    axes.set_ylim(min(-0.05, max(low, -1.0) - 0.1), max(1.1, min(high, 2.0) + 0.15))


def _on_axis(measure: str, levels: pd.DataFrame, lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line.rows(levels)[measure].notna().any()]


def _ordered(levels: pd.DataFrame) -> bool:
    return bool(levels.factor.notna().all())


def _over_factors(axes: "Axes", measure: str, axis: str, levels: pd.DataFrame, branches: pd.DataFrame, lines: Sequence[Line]) -> None:
    factors = sorted({float(factor) for factor in levels.factor})
    for left, right in _supported(levels, factors):
        axes.axvspan(left, right, color=_SHADE, zorder=0, linewidth=0)
    for line in lines:
        rows = line.rows(levels).sort_values("factor")
        x, value, low, high = (rows[name].to_numpy(dtype=np.float64) for name in ("factor", measure, f"{measure}_low", f"{measure}_high"))
        axes.plot(x, value, **line.style)
        shaded(axes, line, x, low, high)
        if line.kind == "learner":
            for at, y, inside in zip(x, value, rows.inside_support, strict=True):
                axes.plot(at, y, line.marker, color=line.colour, markerfacecolor=_fill(line, inside), markersize=5.5, zorder=4)
            if measure == "retention" and len(branches):
                _break_points(axes, line, line.rows(branches), factors)
    names = dict(zip(levels.factor.astype(float), levels.level, strict=True))
    axes.set_xscale("log")
    axes.set_xticks(factors, [label(str(names[factor]), 9) for factor in factors])
    axes.minorticks_off()
    axes.set(xlabel=f"{axis}, as a multiple of home")


def _break_points(axes: "Axes", line: Line, branches: pd.DataFrame, factors: Sequence[float]) -> None:
    """Mark where a learner's retention falls below one half, on each side on which it does."""
    for row in branches.itertuples():
        shift = float(row.s50) if row.s50 is not None else np.nan
        at = shift if row.direction == "up" else 1.0 / shift if shift > 0 else np.nan
        if np.isfinite(at) and factors[0] <= at <= factors[-1]:
            axes.plot([at, at], [-0.05, 0.5], color=line.colour, linewidth=1.0, linestyle=":")
            axes.plot(at, 0.5, "*", color=line.colour, markersize=11, markeredgecolor="white", markeredgewidth=0.6, zorder=5)


def _side_by_side(axes: "Axes", measure: str, levels: pd.DataFrame, lines: Sequence[Line]) -> None:
    names = list(dict.fromkeys(levels.level))
    offsets = np.linspace(-0.36, 0.36, len(lines)) if len(lines) > 1 else np.zeros(len(lines))
    for line, offset in zip(lines, offsets, strict=True):
        rows = line.rows(levels).set_index("level").reindex(names)
        value, low, high = (rows[name].to_numpy(dtype=np.float64) for name in (measure, f"{measure}_low", f"{measure}_high"))
        x = np.arange(len(names)) + offset
        learner = line.kind == "learner"
        axes.vlines(x, low, high, color=line.colour, linewidth=2.2 if learner else 1.2, alpha=0.5)
        for at, y, inside in zip(x, value, rows.inside_support, strict=True):
            fill = _fill(line, inside) if learner else line.colour
            style = {"markerfacecolor": fill, "markersize": 6.0 if learner else 3.5, "alpha": line.style.get("alpha", 1.0)}
            axes.plot(at, y, line.marker, color=line.colour, zorder=3, **style)
    rotated = max(len(str(name)) for name in names) * len(names) > 44
    axes.set_xticks(
        range(len(names)), [label(str(name), 18) for name in names], rotation=35 if rotated else 0, ha="right" if rotated else "center"
    )
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.grid(axis="x", visible=False)
    for i in range(1, len(names)):
        axes.axvline(i - 0.5, color="#dddddd", linewidth=0.6)


def _fill(line: Line, inside: object) -> str:
    """Return a full mark inside the training support, an open one outside, and a grey one where the card does not say."""
    if inside is None or inside != inside:
        return "#cccccc"
    return line.colour if inside else "white"


def _supported(levels: pd.DataFrame, factors: Sequence[float]) -> list[tuple[float, float]]:
    """Return spans of factors inside the training support of every learner that says so; a level reaches half-way to its neighbours."""
    ours = levels[(levels.kind == "learner") & levels.inside_support.notna()]
    edges = [factors[0], *(math.sqrt(one * other) for one, other in pairwise(factors)), factors[-1]]
    inside = [ours.inside_support[ours.factor == factor].astype(bool) for factor in factors]
    return [(edges[i], edges[i + 1]) for i, known in enumerate(inside) if len(known) and known.all()]
