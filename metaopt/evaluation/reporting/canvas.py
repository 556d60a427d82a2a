"""What all figures of a report share: size, colours of lines, labels, and bytes that repeat.

Figures are as wide as a phone and stand side by side on a wider page, so that their text is never smaller than the text around them.
Matplotlib is imported when the first one is drawn.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["WIDTH", "Line", "canvas", "label", "legend_below", "legend_height", "lines_of", "most_tuned", "picture", "shaded"]

WIDTH = 4.6  # inches: a point of text is then a pixel or more on a screen of 390
_LEGEND_COLUMNS = 2
_INK, _GRID = "#222222", "#dddddd"

# Okabe and Ito's palette, distinguishable without red and green: learners strong and solid, baselines paler, thinner and dashed.
_STRONG = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_MUTED = ("#7f7f7f", "#c98f00", "#56B4E9", "#9a7fb8", "#8c6d5a", "#6f9a6f")
_DASHES: tuple[Any, ...] = ((0, (4, 1.5)), (0, (5, 1, 1, 1)), (0, (1, 1)), (0, (6, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "D", "^")

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, hence the same shapes everywhere
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.0,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "text.parse_math": False,  # a name may hold dollars
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "figure.facecolor": "white",
    "figure.dpi": 160.0,
    "svg.hashsalt": "metaopt",  # names inside a file, otherwise random
    "svg.fonttype": "path",
    "path.simplify_threshold": 0.3,
}


@dataclass(frozen=True)
class Line:
    """How one line of the report is drawn and called, the same in every figure.

    Attributes:
        learner, kind, trials: which line of the tables it is.
        name: as in tables, e.g. `adamw K=15`.
        style: colour, line style, width and order of drawing, for `Axes.plot`.
        marker: of single points.
        band: opacity of its interval.
    """

    learner: str
    kind: str
    trials: int
    name: str
    style: dict[str, Any]
    marker: str
    band: float

    @property
    def colour(self) -> str:
        """Its colour."""
        return str(self.style["color"])

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return this line's rows of a table."""
        return table[(table.learner == self.learner) & (table.kind == self.kind) & (table.trials == self.trials)]


def lines_of(summary: pd.DataFrame) -> list[Line]:
    """Return the report's lines in the order of the headline. A baseline keeps its colour over all K; smaller K are paler."""
    known = {kind: list(dict.fromkeys(summary.learner[summary.kind == kind])) for kind in ("learner", "baseline")}
    most = summary.trials.max()
    lines = []
    for row in summary.itertuples():
        i = known[row.kind].index(row.learner)
        if row.kind == "learner":
            style: dict[str, Any] = {"color": _STRONG[i % 4], "linewidth": 2.2, "linestyle": "-" if i < 4 else "--", "zorder": 3}
            name, band = row.learner, 0.18
        else:
            strength = 1.0 if row.trials == most else 0.55
            style = {"color": _MUTED[i % 6], "linewidth": 1.3 * strength**0.5, "linestyle": _DASHES[i % 4], "zorder": 2, "alpha": strength}
            name, band = f"{row.learner} K={row.trials}", 0.0
        lines.append(Line(row.learner, row.kind, int(row.trials), name, style, _MARKERS[i % 4], band))
    return lines


def most_tuned(lines: Sequence[Line]) -> list[Line]:
    """Return the learners, and the baselines at their largest number of trials."""
    most = max(line.trials for line in lines)
    return [line for line in lines if line.kind == "learner" or line.trials == most]


@contextmanager
def canvas(height: float, width: float = WIDTH) -> Iterator["Figure"]:
    """Yield an empty figure with the report's look; draw on it and turn it into bytes inside the block.

    Args:
        height, width: inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # what a user's own settings would change
        matplotlib.rcParams.update(_SETTINGS)
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script without shapes is drawn as boxes
        yield Figure(figsize=(width, height), layout="constrained")


def picture(figure: "Figure", formats: Sequence[str]) -> dict[str, bytes]:
    """Return the figure's bytes by format (`png`, `svg`). They depend on what is drawn, and on nothing else."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure.draw_without_rendering()  # so that one layout serves all formats
    figure.set_layout_engine("none")
    pictures = {}
    for one in formats:
        content = io.BytesIO()
        drawer: Any = (FigureCanvasAgg if one == "png" else FigureCanvasSVG)(figure)  # `Figure.savefig` would draw everything twice
        if one == "png":
            drawer.print_png(content, metadata={"Software": ""})
        else:
            drawer.print_svg(content, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        pictures[one] = content.getvalue() if one == "png" else _shorter(content.getvalue())
    return pictures


def label(text: str, length: int = 26) -> str:
    """Return a name as matplotlib may draw it: shortened in its middle, and never hidden from a legend."""
    if len(text) > length:
        text = f"{text[: length - length // 3 - 1]}…{text[-(length // 3) :]}"
    return " " * text.startswith("_") + text


def legend_height(lines: Sequence[Line]) -> float:
    """Return the inches that `legend_below` needs."""
    return 0.12 + 0.19 * (-(-len(lines) // _LEGEND_COLUMNS))


def legend_below(figure: "Figure", lines: Sequence[Line], *, marks: bool = False) -> None:
    """Put a legend below all panels, with marks where the panels show single points."""
    from matplotlib.lines import Line2D

    if lines:
        point = {"markersize": 5.0}
        handles = [
            Line2D(
                [],
                [],
                **line.style | ({"marker": line.marker, **point} if marks else {}) | {"linewidth": max(line.style["linewidth"], 1.3)},
            )
            for line in lines
        ]
        names = [label(line.name, 22) for line in lines]
        figure.legend(handles, names, loc="outside lower left", ncols=_LEGEND_COLUMNS, columnspacing=1.6, borderpad=0.1)


def shaded(axes: "Axes", line: Line, x: Any, low: Any, high: Any) -> None:
    """Shade an interval around a line, if the line is one that has it shaded."""
    if line.band:
        axes.fill_between(x, low, high, color=line.colour, alpha=line.band, linewidth=0, zorder=line.style["zorder"] - 0.5)


@cache
def _long_numbers() -> re.Pattern[bytes]:
    return re.compile(rb"(?<=[ \n\"ML])(-?\d+\.\d\d)\d+")


def _shorter(svg: bytes) -> bytes:
    """Return the SVG with coordinates of paths rounded down to hundredths of a point; half the size, and nothing moves visibly."""

    def path(found: re.Match[bytes]) -> bytes:
        return _long_numbers().sub(rb"\1", found.group())

    return re.sub(rb' d="[^"]*"', path, svg)
