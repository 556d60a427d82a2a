"""PNG plots of a meta-training run, from its metrics alone."""

import math
from pathlib import Path
from typing import Any

__all__ = ["plot_run"]

_SMOOTHING = 0.95


def _smoothed(values: list[float]) -> list[float]:
    """Return the bias-corrected moving average; a missing value (a skipped step) repeats the last one."""
    out: list[float] = []
    total = weight = 0.0
    for value in values:
        if math.isfinite(value):
            total, weight = _SMOOTHING * total + (1 - _SMOOTHING) * value, _SMOOTHING * weight + (1 - _SMOOTHING)
        out.append(total / weight if weight else float("nan"))
    return out


def plot_run(rows: list[dict[str, Any]], directory: Path) -> list[Path]:
    """Write `meta_loss.png` and `outer_optimizer.png` and return their paths."""
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    directory.mkdir(exist_ok=True)
    steps = [row["step"] for row in rows]
    families = sorted({name for row in rows for name in row["families"]})
    loss = Figure(figsize=(7, 4.2), layout="constrained")
    axes = loss.add_subplot()
    for family in families:
        values = [row["families"].get(family, float("nan")) for row in rows]
        (line,) = axes.plot(steps, _smoothed(values), label=family)
        axes.plot(steps, values, ".", markersize=2, alpha=0.3, color=line.get_color())
    axes.set(xlabel="outer step", ylabel="meta-loss (1 = initialisation, 0 = solved)", title="Meta-loss of the window, by task family")
    axes.grid(alpha=0.3)
    axes.legend(title=f"moving average {_SMOOTHING}")

    outer = Figure(figsize=(7, 4.2), layout="constrained")
    top, bottom = outer.subplots(2, sharex=True)
    top.plot(steps, [row["grad_norm"] for row in rows], linewidth=0.8)
    top.set(ylabel="gradient norm", title="Outer optimizer")
    bottom.plot(steps, [row["lr"] for row in rows])
    bottom.set(xlabel="outer step", ylabel="outer learning rate")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    paths = []
    for name, figure in (("meta_loss", loss), ("outer_optimizer", outer)):
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths
