"""Figures of an explanation: knobs over a run, sensitivity to groups of inputs, and closed loop beside replays."""

from typing import TYPE_CHECKING

import numpy as np

from metaopt.evaluation.policies.rows import POLICY
from metaopt.evaluation.reporting.canvas import canvas, label, picture
from metaopt.learners.policies.observation import LAYOUT

if TYPE_CHECKING:
    from metaopt.evaluation.policies.explain import Explanation

__all__ = ["explain_figures"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7f7f7f", "#c98f00", "#56B4E9", "#8c6d5a")
_WIDTH = 6.4


def explain_figures(found: "Explanation") -> dict[str, bytes]:
    """Return the figures as PNG by name; that of the knobs only where one moves."""
    drawn = {"sensitivity": _sensitivity(found), "open_loop": _open_loop(found)}
    return drawn | ({"knobs": _knobs(found)} if len(found.knobs) else {})


def _knobs(found: "Explanation") -> bytes:
    knobs, families = list(found.knobs.knob.unique()), list(found.knobs.family.unique())
    columns = min(2, len(knobs))
    rows = -(-len(knobs) // columns)
    with canvas(0.9 + (1.9 if columns > 1 else 2.6) * rows + 0.2 * -(-len(families) // 2), _WIDTH) as figure:
        panels = list(figure.subplots(rows, columns, sharex=True, squeeze=False).flat)
        for axes, knob in zip(panels, knobs, strict=False):
            for colour, family in zip(_COLOURS * len(families), families, strict=False):
                own = found.knobs[(found.knobs.knob == knob) & (found.knobs.family == family)]
                axes.plot(own.share, own["median"], color=colour, linewidth=1.6, label=label(family) if knob == knobs[0] else None)
                axes.fill_between(own.share, own.low, own.high, color=colour, alpha=0.12, linewidth=0)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(lambda value, _: "")
            axes.tick_params(labelsize=8)
            axes.set_title(f"{knob} over its start", fontsize=8.5)
        for axes in panels[len(knobs) :]:
            axes.set_visible(False)
        for axes in panels[len(knobs) - columns : len(knobs)]:
            axes.set_xlabel("share of the decisions; median and 80 % of runs", fontsize=8)
        figure.legend(loc="outside lower center", ncols=2)
        return picture(figure, ("png",))["png"]


def _sensitivity(found: "Explanation") -> bytes:
    table = found.sensitivity.sort_values("kl_history", kind="stable")
    groups, single = table[table.group.isin(LAYOUT)], table[~table.group.isin(LAYOUT)]
    with canvas(1.4 + 0.27 * len(table), _WIDTH) as figure:
        panels = figure.subplots(2, 1, sharex=True, height_ratios=[len(groups), len(single)])
        for axes, own, title in zip(panels, (groups, single), ("Groups of inputs", "Single statistics, with their histories"), strict=True):
            at = np.arange(len(own))
            axes.barh(at + 0.2, own.kl_history, height=0.38, color=_COLOURS[0], label="in the whole run")
            axes.barh(at - 0.2, own.kl_now, height=0.38, color=_COLOURS[1], label="at this decision")
            axes.set_yticks(at, [label(name.removeprefix("statistic "), 38) for name in own.group], fontsize=7.5)
            axes.set_title(title, fontsize=9)
        panels[1].set_xlabel("nats: change of the rate's choice", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return picture(figure, ("png",))["png"]


def _open_loop(found: "Explanation") -> bytes:
    table = found.open_loop
    families, everybody = list(table.family.unique()), list(table.who.unique())
    with canvas(1.3 + 0.55 * len(families), _WIDTH) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        at = np.arange(len(families))[::-1]
        for place, (who, colour) in enumerate(zip(everybody, _COLOURS, strict=False)):
            own, spot = table[table.who == who].set_index("family").loc[families], at + 0.26 * (1 - place)
            for axes, column in ((left, "reward_best"), (right, "wins")):
                if who == POLICY and axes is right:
                    continue
                value, low, high = (own[f"{column}{end}"].to_numpy() for end in ("", "_low", "_high"))
                reach = np.stack([value - low, high - value])
                name = who if axes is left else None
                axes.barh(spot, value, xerr=reach, height=0.24, color=colour, label=name, error_kw={"elinewidth": 0.9})
        left.set_yticks(at, [label(name) for name in families], fontsize=8)
        left.axvline(0.0, color="black", linewidth=0.8)
        left.set_xlabel("reward beside the best constant rate", fontsize=8)
        right.axvline(0.5, color="black", linewidth=0.8)
        right.set_xlim(0.0, 1.0)
        right.set_xlabel("runs that the policy ends lower than it", fontsize=8)
        figure.suptitle("What is left without feedback", fontsize=10)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return picture(figure, ("png",))["png"]
