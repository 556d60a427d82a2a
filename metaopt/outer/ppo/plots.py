"""PNG plots of policy training, from its metrics alone."""

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaopt.outer.plots import smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_policy_run"]

_SIZE = (7, 4.2)
_ENTROPY = "entropy_"

Rows = list[dict[str, Any]]


def plot_policy_run(rows: Rows, directory: Path) -> list[Path]:
    """Write `reward.png`, `entropy.png` and `update.png`; return their paths. Dotted lines are the borders of the curriculum's stages."""
    directory.mkdir(exist_ok=True)
    paths = []
    for name, draw in (("reward", _reward), ("entropy", _entropy), ("update", _update)):
        paths.append(directory / f"{name}.png")
        draw(rows).savefig(paths[-1], dpi=120)
    return paths


def _figure() -> "Figure":
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    return Figure(figsize=_SIZE, layout="constrained")


def _values(rows: Rows, name: str) -> list[float]:
    return [row.get(name, math.nan) for row in rows]


def _stages(axes: "Axes", rows: Rows) -> None:
    label: str | None = "next stage"
    for before, after in itertools.pairwise(rows):
        if before["stage"] != after["stage"]:
            axes.axvline(before["step"] + 0.5, color="0.35", linestyle=":", linewidth=1, label=label)
            label = None


def _reward(rows: Rows) -> "Figure":
    figure = _figure()
    axes = figure.add_subplot()
    steps = _values(rows, "step")
    for family in sorted({name for row in rows for name in row["families"]}):
        axes.plot(steps, smoothed([row["families"].get(family, math.nan) for row in rows]), linewidth=1, label=family)
    (line,) = axes.plot(steps, smoothed(_values(rows, "reward")), color="k", linewidth=2, label="all")
    axes.plot(steps, _values(rows, "reward"), ".", markersize=2, alpha=0.3, color=line.get_color())
    _stages(axes, rows)
    axes.set(xlabel="outer step", ylabel="mean reward of an episode", title="Reward of sampled actions, by task family")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", title="moving averages")
    return figure


def _entropy(rows: Rows) -> "Figure":
    figure = _figure()
    axes = figure.add_subplot()
    for name in sorted({name for row in rows for name in row if name.startswith(_ENTROPY)}):
        axes.plot(_values(rows, "step"), smoothed(_values(rows, name)), linewidth=1, label=name.removeprefix(_ENTROPY))
    _stages(axes, rows)
    axes.set(xlabel="outer step", ylabel="entropy (nats)", title="Entropy of each head, where it was there", ylim=(0, None))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", title="moving averages")
    return figure


def _update(rows: Rows) -> "Figure":
    figure = _figure()
    panels = figure.subplots(3, sharex=True)
    for axes, name, label in zip(panels, ("kl", "clip_fraction", "explained_variance"), ("KL (nats)", "clipped", "explained"), strict=True):
        axes.plot(_values(rows, "step"), _values(rows, name), linewidth=0.8)
        axes.set(ylabel=label)
        axes.grid(alpha=0.3)
        _stages(axes, rows)
    panels[2].set(ylim=(-1.05, 1.05), xlabel="outer step")  # below -1 a critic says nothing that a number more would make worse
    panels[0].set_title("Update: distance of policies, clipped decisions, variance of returns that the critic explains")
    return figure
