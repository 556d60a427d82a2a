"""PNG plots of a meta-training run, from its metrics alone."""

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_run", "smoothed"]

_SMOOTHING = 0.95
_SIZE = (7, 4.2)
_NORMAL_95 = 1.96

Rows = list[dict[str, Any]]


def smoothed(values: list[float]) -> list[float]:
    """Return the bias-corrected moving average; a missing value (a skipped step) repeats the last one."""
    out: list[float] = []
    total = weight = 0.0
    for value in values:
        if math.isfinite(value):
            total, weight = _SMOOTHING * total + (1 - _SMOOTHING) * value, _SMOOTHING * weight + (1 - _SMOOTHING)
        out.append(total / weight if weight else float("nan"))
    return out


def plot_run(rows: Rows, directory: Path) -> list[Path]:
    """Write `meta_loss.png`, `outer_optimizer.png`, and with validations `validation.png`; return their paths.

    Vertical lines are the borders of phases (solid) and of the curriculum's stages (dotted).
    """
    directory.mkdir(exist_ok=True)
    steps = [row for row in rows if "validation" not in row]
    validations = [{"step": row["step"], **row["validation"]} for row in rows if "validation" in row]
    figures = {"meta_loss": _meta_loss(steps), "outer_optimizer": _outer_optimizer(steps)}
    if validations:
        figures["validation"] = _validation(validations, steps)
    paths = []
    for name, figure in figures.items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths


def _figure() -> "Figure":
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    return Figure(figsize=_SIZE, layout="constrained")


def _borders(axes: "Axes", steps: Rows) -> None:
    """Draw a line where the phase or the stage of the curriculum changes."""
    for key, style in (("phase", "-"), ("stage", ":")):
        drawn = False
        for before, after in itertools.pairwise(steps):
            if before.get(key) != after.get(key):
                label = None if drawn else f"next {key}"
                axes.axvline(before["step"] + 0.5, color="0.35", linestyle=style, linewidth=1, label=label)
                drawn = True


def _meta_loss(steps: Rows) -> "Figure":
    figure = _figure()
    axes = figure.add_subplot()
    at = [row["step"] for row in steps]
    for family in sorted({name for row in steps for name in row["families"]}):
        values = [row["families"].get(family, float("nan")) for row in steps]
        (line,) = axes.plot(at, smoothed(values), label=family)
        axes.plot(at, values, ".", markersize=2, alpha=0.3, color=line.get_color())
    _borders(axes, steps)
    axes.set(xlabel="outer step", ylabel="meta-loss (1 = initialisation, 0 = solved)", title="Meta-loss of the window, by task family")
    axes.grid(alpha=0.3)
    axes.legend(title=f"moving average {_SMOOTHING}")
    return figure


def _outer_optimizer(steps: Rows) -> "Figure":
    figure = _figure()
    top, bottom = figure.subplots(2, sharex=True)
    at = [row["step"] for row in steps]
    top.plot(at, [row["grad_norm"] for row in steps], linewidth=0.8)
    top.set(ylabel="gradient norm", title="Outer optimizer")
    bottom.plot(at, [row["lr"] for row in steps])
    bottom.set(xlabel="outer step", ylabel="outer learning rate")
    for axes in (top, bottom):
        _borders(axes, steps)
        axes.grid(alpha=0.3)
    return figure


def _validation(validations: Rows, steps: Rows) -> "Figure":
    figure = _figure()
    axes = figure.add_subplot()
    at = [row["step"] for row in validations]
    for kind, label, color in (("last", "last theta", "C1"), ("average", "average of theta", "C2")):
        if "average_loss" in validations[0]:
            axes.plot(at, [row[f"{kind}_loss"] for row in validations], "--", color=color, linewidth=1, label=label)
    # Of the paired change: particles differ from each other far more than thetas do, and every theta meets the same ones.
    half = [_NORMAL_95 * row.get("change_se", float("nan")) for row in validations]
    values, label = [row["loss"] for row in validations], "the better of both" if "average_loss" in validations[0] else "theta"
    axes.errorbar(at, values, half, marker="o", markersize=3, capsize=2, linewidth=1, color="C0", label=label)
    best = validations[-1]["best_step"]
    chosen = next((row["loss"] for row in validations if row["step"] == best), float("nan"))
    axes.plot([best], [chosen], "*", markersize=14, color="C3", label=f"chosen: after {best}", zorder=3)
    _borders(axes, steps)
    axes.set(xlabel="outer steps done", ylabel="normalised loss", title="Meta-validation on fixed particles, 95 % interval of the change")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
