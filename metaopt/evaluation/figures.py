"""Figures of a report as PNG bytes: loss curves a task, and the headline with its intervals.

Matplotlib is imported when the first one is drawn.

Legend: E evaluation points, S runs (inner seeds).
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from metaopt.baselines import Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["band_table", "curve_figure", "headline_figure"]

# Okabe and Ito's palette, distinguishable without red and green; learners first, baselines thinner and dashed.
_STRONG = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_MUTED = ("#555555", "#E69F00", "#56B4E9", "#8C6BB1")
_DASHES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_KINDS = {"heldout": "held-out", "train": "training"}
_DOTS_AN_INCH = 110


def curve_figure(title: str, learners: Mapping[str, Curves], baselines: Mapping[str, Curves], kind: str = "heldout") -> bytes:
    """Return the loss of one task over inner steps: median over seeds, band from the lowest to the highest.

    Args:
        title: of the figure.
        learners: curves by label; drawn in front, in strong colours.
        baselines: curves by label.
        kind: "heldout" or "train".
    """
    figure = _figure(6.4, 4.6)
    axes = figure.subplots()
    for i, (label, curves) in enumerate(learners.items()):
        _draw(axes, curves, kind, label, color=_STRONG[i % 4], linewidth=2.4, linestyle="-" if i < 4 else "--", zorder=3, band=0.2)
    for i, (label, curves) in enumerate(baselines.items()):
        _draw(axes, curves, kind, label, color=_MUTED[i % 4], linewidth=1.5, linestyle=_DASHES[i % 4], band=0.08)
    floor = min(float(np.median(getattr(curves, kind), axis=1).min()) for curves in (*learners.values(), *baselines.values()))
    if floor <= 0.0:  # a noisy objective may fall below its own minimum
        axes.set_yscale("symlog", linthresh=1e-2)
    elif floor < 0.2:
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(floor / 2, 1e-5))
    axes.set(xlabel="inner step", ylabel="normalised loss", title=f"{title}: {_KINDS[kind]} loss")
    axes.grid(alpha=0.25, which="both")
    figure.legend(loc="outside lower center", ncols=2, fontsize=10, frameon=False)
    return _png(figure)


def headline_figure(summary: pd.DataFrame) -> bytes:
    """Return final loss and speed-up of every line of the headline table, with intervals."""
    figure = _figure(8.0, 1.4 + 0.3 * len(summary))
    panels = figure.subplots(1, 2, sharey=True)
    names = [row.learner if row.kind == "learner" else f"{row.learner} K={row.trials}" for row in summary.itertuples()]
    colours = ["#0072B2" if kind == "learner" else "#555555" for kind in summary.kind]
    height = np.arange(len(summary))[::-1]
    titles = ("final loss (lower is better)", "speed-up (higher is better)")
    for axes, column, title in zip(panels, ("final_loss", "speed_up"), titles, strict=True):
        low, high = summary[f"{column}_low"], summary[f"{column}_high"]
        axes.hlines(height, low, high, color=colours, linewidth=3, alpha=0.45)
        axes.scatter(summary[column], height, color=colours, s=38, zorder=3)
        axes.set_title(title, fontsize=11)
        axes.grid(alpha=0.25, axis="x")
    panels[0].set_yticks(height, names)
    panels[1].axvline(1.0, color="black", linewidth=0.8)
    if (summary.final_loss_low > 0).all() and summary.final_loss_high.max() > 10 * summary.final_loss_low.min():
        panels[0].set_xscale("log")
    return _png(figure)


def _draw(axes: "Axes", curves: Curves, kind: str, label: str, *, band: float, **style: Any) -> None:
    values: NDArray[np.float64] = getattr(curves, kind)
    axes.plot(curves.steps, np.median(values, axis=1), label=label, **style)
    axes.fill_between(curves.steps, values.min(axis=1), values.max(axis=1), color=style["color"], alpha=band, linewidth=0)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _png(figure: "Figure") -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DOTS_AN_INCH, metadata={"Software": ""})
    return content.getvalue()


def band_table(curves: Curves) -> dict[str, Sequence[float]]:
    """Return what a curve figure shows, as plain numbers."""
    table: dict[str, Sequence[float]] = {"steps": curves.steps.tolist()}
    for kind in ("train", "heldout"):
        values = getattr(curves, kind)
        table |= {f"{kind}_median": np.median(values, axis=1).tolist(), f"{kind}_low": values.min(axis=1).tolist()}
        table[f"{kind}_high"] = values.max(axis=1).tolist()
    return table
