"""Loss curves of one task: held-out above, training below, and the same as plain numbers.

Legend: E evaluation points, S runs (inner seeds).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from metaopt.baselines import Curves
from metaopt.evaluation.reporting.canvas import Line, canvas, label, legend_below, legend_height, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["band_table", "curve_figure", "drawn_curves"]

_HEADROOM = 1.4  # what rises higher, in units of the first loss, leaves the figure
_KINDS = {"heldout": "held-out loss", "train": "training loss"}


def curve_figure(title: str, drawn: Sequence[tuple[Line, Curves]], formats: Sequence[str]) -> dict[str, bytes]:
    """Return the losses of one task over inner steps: median over seeds, band from the lowest to the highest.

    Args:
        title: of the figure.
        drawn: lines with their curves; runs that diverged leave the figure at its upper edge.
        formats: see `picture`.
    """
    shown = [line for line, _ in drawn]
    with canvas(3.9 + legend_height(shown)) as figure:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, (kind, name) in zip(panels, _KINDS.items(), strict=True):
            for line, curves in drawn:
                _draw(axes, line, curves, kind)
            _scale(axes, [getattr(curves, kind) for _, curves in drawn])
            axes.set_title(name, fontweight="normal")
        panels[1].set(xlabel="inner step")
        figure.suptitle(label(title, 40), x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        legend_below(figure, shown)
        return picture(figure, formats)


def _draw(axes: "Axes", line: Line, curves: Curves, kind: str) -> None:
    values = getattr(curves, kind)
    with np.errstate(invalid="ignore"):
        axes.plot(curves.steps, np.median(values, axis=1), **line.style)
        low, high = values.min(axis=1), values.max(axis=1)
    axes.fill_between(curves.steps, low, high, color=line.colour, alpha=max(line.band, 0.08), linewidth=0)


def _scale(axes: "Axes", values: Sequence[np.ndarray]) -> None:
    """Choose a scale that shows both a loss near 1 and one near its floor; what lies far above the start is cut off."""
    with np.errstate(invalid="ignore"):
        medians = [np.median(one, axis=1) for one in values]
    finite = [one[np.isfinite(one)] for one in (*medians, *values)]
    if sum(map(len, finite)) == 0:
        return
    floor = min((one.min() for one in finite[: len(medians)] if len(one)), default=1.0)
    ceiling = max(one.max() for one in finite if len(one))
    first = float(np.median([one[0] for one in medians]))
    if first > 0.0 and ceiling > _HEADROOM * first:
        axes.set_ylim(top=_HEADROOM * first)
    if floor <= 0.0:  # a noisy objective may fall below its own minimum
        axes.set_yscale("symlog", linthresh=1e-2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    elif floor < 0.2:
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(floor / 2, 1e-5))
        low, high = axes.get_ylim()
        steps = (1.0, 2.0, 5.0) if high < 150 * low else (1.0,)
        ticks = [step * 10.0**power for power in range(-6, 4) for step in steps if low <= step * 10.0**power <= high]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()


def band_table(curves: Curves) -> dict[str, Sequence[float]]:
    """Return what a curve figure shows, as plain numbers: median, lowest and highest over seeds [E] for both losses."""
    table: dict[str, Sequence[float]] = {"steps": curves.steps.tolist()}
    for kind in _KINDS:
        values = getattr(curves, kind)
        table |= {f"{kind}_median": np.median(values, axis=1).tolist(), f"{kind}_low": values.min(axis=1).tolist()}
        table[f"{kind}_high"] = values.max(axis=1).tolist()
    return table


def drawn_curves(lines: Sequence[Line], learners: Mapping[str, Curves], baselines: Mapping[str, Curves]) -> list[tuple[Line, Curves]]:
    """Return the lines that have curves on a task, with them; learners by name, baselines as `name K=trials`."""
    found = [(line, (learners if line.kind == "learner" else baselines).get(line.name)) for line in lines]
    return [(line, curves) for line, curves in found if curves is not None]
