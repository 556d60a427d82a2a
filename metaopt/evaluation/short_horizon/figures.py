"""Figures of the laboratory: the noisy quadratic's rules, the horizon curve, and the network experiments.

Planners go from purple to yellow-green as they look further ahead (viridis, readable without colour vision and in grey); what does not
plan is grey or orange. Lines are named where they end. Every figure comes as `png` and `svg` bytes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metaopt.estimators.short_horizon import Offline, Online, decay_rates, interval
from metaopt.evaluation.reporting.canvas import canvas, picture
from metaopt.tasks.oracles.horizon_bias import Rule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bias_figure", "horizon_figure", "network_figure"]

_FORMATS = ("png", "svg")
_WIDTH = 8.4
_NETWORK_DPI = 120  # bands take bytes
_CUT = 1.5  # times the first loss: where the axis of losses ends
_MOMENTS = 101  # at most so many are drawn of a run
_GREY, _ORANGE, _BLUE = "#6f6f6f", "#D55E00", "#0072B2"
_PLANNERS = {1: "#440154", 2: "#482878", 5: "#443983", 10: "#31688e", 25: "#26828e", 50: "#1f9e89", 100: "#5ec962", 250: "#90b500"}
_SHOWN = (1, 10, 50, 250)
_DESCENT = "hypergradient descent 0.01 from 0.1"
_AHEAD = ("#440154", "#31688e", "#1f9e89", "#90b500")
_CALLED = {"stochastic": "fresh batches", "deterministic": "one batch\nrepeated"}
_MODES = {"stochastic": _ORANGE, "deterministic": _BLUE, "hand-set": _GREY}

Pictures = dict[str, bytes]


def _named(axes: "Axes", labels: Sequence[tuple[float, str, str]], gap: float = 0.058) -> None:
    """Write names at the right edge at (height, name, colour), moved apart where they would touch; `gap` is a share of the height."""
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"
    places = sorted((float(_share(y, low, high, log)), name, colour) for y, name, colour in labels)
    # Least squares under "each at least a gap above the one before": neighbours that would touch become blocks around their mean.
    blocks: list[list[float]] = []
    for i, (share, _, _) in enumerate(places):
        blocks.append([share - i * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    heights = [float(np.mean(block)) for block in blocks for _ in block]
    for i, (_, name, colour) in enumerate(places):
        axes.text(1.02, heights[i] + i * gap, name, transform=axes.transAxes, color=colour, va="center", fontsize=9.0)


def _ticks(axes: "Axes", values: Sequence[float], which: str = "y") -> None:
    """Mark plain numbers on a logarithmic axis; the canvas draws no exponents."""
    from matplotlib.ticker import NullLocator

    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_ticks(list(values), [f"{value:g}" for value in values])
    axis.set_minor_locator(NullLocator())


def _share(y: float, low: float, high: float, log: bool) -> float:
    if log:
        y, low, high = np.log(y), np.log(low), np.log(high)
    return min(max((y - low) / (high - low), 0.0), 1.0)


def _rule_lines(rules: Sequence[Rule]) -> list[tuple[Rule, str, dict[str, Any]]]:
    """Return what is drawn of the rules: rule, label, style."""
    drawn: list[tuple[Rule, str, dict[str, Any]]] = []
    for rule in rules:
        if rule.family == "block" and rule.horizon in _SHOWN:
            style = {"color": _PLANNERS[rule.horizon], "linewidth": 2.2 if rule.horizon in (1, 250) else 1.6, "zorder": 3}
            drawn.append((rule, rule.name, style))
        elif rule.family == "constant":
            drawn.append((rule, "best constant", {"color": _GREY, "linewidth": 1.5, "linestyle": (0, (4, 1.5))}))
        elif rule.name == _DESCENT:
            drawn.append((rule, "hypergradient", {"color": _ORANGE, "linewidth": 1.6, "linestyle": (0, (1, 1))}))
    return drawn


def bias_figure(rules: Sequence[Rule]) -> Pictures:
    """Return loss against step, and rate against step, of the main rules."""
    with canvas(3.3, _WIDTH) as figure:
        left, right = figure.subplots(1, 2)
        drawn = _rule_lines(rules)
        for rule, _, style in drawn:
            steps = len(rule.rates)
            left.semilogy(range(steps + 1), rule.losses, **style)
            right.semilogy(range(steps), np.maximum(rule.rates, 1e-9), drawstyle="steps-post", **style)
        left.set(title="Expected loss", xlabel="step", xlim=(0, steps), ylim=(8e-3, 9))
        right.set(title="Rate", xlabel="step", xlim=(0, steps), ylim=(0.012, 2.6))
        _ticks(left, (0.01, 0.1, 1))
        _ticks(right, (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2))
        _named(left, [(rule.final, label, style["color"]) for rule, label, style in drawn])
        return picture(figure, _FORMATS)


def horizon_figure(rules: Sequence[Rule]) -> Pictures:
    """Return the final loss against the horizon that was planned or tuned for."""
    with canvas(3.3, 5.6) as figure:
        axes = figure.subplots()
        planners = [rule for rule in rules if rule.family == "block"]
        tuned = [rule for rule in rules if rule.family == "power"]
        for group, colour, marker in ((planners, _BLUE, "o"), (tuned, "#009E73", "s")):
            axes.loglog(
                [rule.horizon for rule in group], [rule.final for rule in group], color=colour, marker=marker, markersize=5, zorder=3
            )
        [constant] = [rule for rule in rules if rule.family == "constant"]
        axes.axhline(constant.final, color=_GREY, linestyle=(0, (4, 1.5)), linewidth=1.3)
        horizons = [rule.horizon for rule in planners]
        axes.set_xticks(horizons, [str(one) for one in horizons])
        axes.tick_params(axis="x", which="minor", length=0)
        _ticks(axes, (0.01, 0.02, 0.05, 0.1))
        axes.set(title="Loss after 250 steps", xlabel="steps looked ahead", ylim=(0.009, 0.11), xlim=(0.9, 280))
        names = [(planners[-1].final, "planned again\nand again", _BLUE), (tuned[-1].final, "decay, tuned", "#009E73")]
        _named(axes, [*names, (constant.final, "best constant", _GREY)])
        return picture(figure, _FORMATS)


def network_figure(offline: Offline, online: Online) -> Pictures:
    """Return four panels: losses and rates of decays tuned at look-aheads, and of rates adapted online; bands are 95 % intervals."""
    with canvas(5.9, _WIDTH) as figure:
        figure.set_dpi(_NETWORK_DPI)
        (loss, rate), (online_loss, online_rate) = figure.subplots(2, 2)
        _offline_panels(loss, rate, offline)
        _online_panels(online_loss, online_rate, online)
        return picture(figure, _FORMATS)


def _offline_panels(loss: "Axes", rate: "Axes", offline: Offline) -> None:
    names = []
    steps = np.unique(np.geomspace(1, offline.steps, 200).round())
    for row, colour in zip(offline.rows, _AHEAD, strict=True):
        intervals = np.array([interval(values) for values in row.losses.tolist()])
        _band(loss, np.maximum(offline.moments, 1), intervals, colour)
        loss.axvline(row.look_ahead, color=colour, linewidth=0.8, linestyle=(0, (1, 1)), zorder=1)
        mean = {float(t): decay_rates(row.start, row.power, offline.time)(t)[0].log() for t in steps}
        rate.loglog(list(mean), [float(one.mean().exp()) for one in mean.values()], color=colour, linewidth=1.8)
        names.append((intervals[-1, 0], f"tuned at {row.look_ahead}", colour))
    loss.set(title="Offline: training loss", xlabel="step", xscale="log", xlim=(1, offline.steps))
    rate.set(title="Offline: rate chosen", xlabel="step", xlim=(1, offline.steps), ylim=(1e-4, 0.2))
    for axes in (loss, rate):
        _ticks(axes, [10**power for power in range(8) if 10**power < offline.steps], "x")
    _ticks(rate, (1e-4, 1e-3, 1e-2, 1e-1))
    _named(loss, names)


def _online_panels(loss: "Axes", rate: "Axes", online: Online) -> None:
    names = []
    kept = slice(None, None, -(-len(online.moments) // _MOMENTS))
    moments = np.array(online.moments)[::-1][kept]  # backwards, so that the last one stays
    for run in online.runs:
        colour = _MODES[run.name]
        intervals = np.array([interval(values) for values in run.loss.flip(0)[kept].tolist()])
        _band(loss, moments, intervals, colour)
        logs = np.array([interval(values) for values in run.rate.double().log().flip(0)[kept].tolist()])
        _band(rate, moments, np.exp(logs), colour)
        names.append((intervals[0, 0], _CALLED.get(run.name, run.name), colour))
    top = _CUT * float(online.runs[0].loss[0].mean())  # a run that fails would flatten the others
    loss.set(title="Online: training loss", xlabel="step", xlim=(0, online.moments[-1]), ylim=(0.0, top))
    rate.set(title="Online: rate", xlabel="step", yscale="log", xlim=(0, online.moments[-1]))
    _ticks(rate, (1e-4, 1e-3, 1e-2, 0.1, 1, 10))
    _named(loss, names)


def _band(axes: "Axes", x: Any, intervals: Any, colour: str) -> None:
    axes.plot(x, intervals[:, 0], color=colour, linewidth=1.8, zorder=3)
    axes.fill_between(x, intervals[:, 1], intervals[:, 2], color=colour, alpha=0.18, linewidth=0)
