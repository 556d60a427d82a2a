"""Figures of an evaluation: steps to equal loss task by task, rewards beside the grid, and the policy's rates beside a cosine's."""

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from metaopt.evaluation.policies.results import PolicyEvaluation
from metaopt.evaluation.policies.rows import AGAINST_DEFAULT, COSINE, POLICY
from metaopt.evaluation.policies.summary import EVERY
from metaopt.evaluation.reporting.canvas import canvas, label, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["figures"]

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#9a9a9a"
_MOST_TASKS = 40  # of a dot plot: more cannot be read
_LEAST_RATE = 1e-5  # of an axis, where the policy's are not lower: a cosine's end is below any
_FEW = 6  # tasks whose rates are shown


def figures(found: PolicyEvaluation) -> dict[str, bytes]:
    """Return the figures as PNG by name: three a set, but the first where it has other budgets to compare with."""
    drawn = {}
    for name in dict.fromkeys(found.comparison.set):
        suffix = str(name).replace(" ", "_")
        equal = found.equal[found.equal.set == name] if len(found.equal) else found.equal
        if len(equal):
            drawn[f"steps_{suffix}"] = _steps_figure(equal)
        drawn[f"rewards_{suffix}"] = _reward_figure(found, str(name))
        drawn[f"rates_{suffix}"] = _rate_figure(found.trajectories[found.trajectories.set == name])
    return drawn


def _steps_figure(equal: pd.DataFrame) -> bytes:
    """Geometric mean over seeds for each task, sorted; open dots have a censored run."""
    means = (
        equal.assign(log=np.log(equal.factor), censored=equal.at_most | equal.at_least)
        .groupby(["task", "against"])
        .agg(log=("log", "mean"), censored=("censored", "any"))
        .reset_index()
    )
    order = means[means.against == COSINE].sort_values("log").task.tolist()
    if len(order) > _MOST_TASKS:
        order = [order[round(i * (len(order) - 1) / (_MOST_TASKS - 1))] for i in range(_MOST_TASKS)]
    with canvas(1.2 + 0.17 * len(order), 6.4) as figure:
        axes = figure.subplots()
        for against, colour, marker in ((AGAINST_DEFAULT, _GREY, "s"), (COSINE, _BLUE, "o")):
            own = means[means.against == against].set_index("task").loc[order]
            face = [("none" if censored else colour) for censored in own.censored]
            x = np.exp(own.log.to_numpy())
            axes.scatter(
                x, range(len(order)), s=22, marker=marker, facecolors=face, edgecolors=colour, label=f"against {against}", zorder=3
            )
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
        axes.set_yticks(range(len(order)), [label(_short(task), 34) for task in order], fontsize=7)
        axes.set_title("Steps that a baseline needs for the policy's loss")
        axes.set_xlabel("over the policy's steps; open: out of the range that was tried")
        figure.legend(loc="outside lower center", ncols=2)
        return picture(figure, ("png",))["png"]


def _reward_figure(found: PolicyEvaluation, name: str) -> bytes:
    rewards = found.rewards[(found.rewards.set == name) & (found.rewards.family == EVERY)].iloc[::-1]
    grid = found.grid[(found.grid.set == name) & (found.grid.family == EVERY)].reward.to_numpy()
    with canvas(1.0 + 0.3 * (len(rewards) + 1), 6.4) as figure:
        axes = figure.subplots()
        colours = [_BLUE if who == POLICY else _ORANGE if who == COSINE else "#bdbdbd" for who in rewards.who]
        reach = np.stack([rewards.reward - rewards.low, rewards.high - rewards.reward])
        axes.barh(range(len(rewards)), rewards.reward, xerr=reach, color=colours, height=0.65, error_kw={"elinewidth": 1.0})
        names = list(rewards.who)
        if len(grid):
            axes.plot(grid, np.full(len(grid), len(rewards)), "|", color="#444444", markersize=9)
            axes.plot(np.median(grid), len(rewards), "D", color="black", markersize=5)
            names.append("35 AdamW runs, median")
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.axvline(math.log(2.0), color=_GREY, linewidth=0.8, linestyle=":")
        axes.set_title(f"Mean reward: {name}")
        axes.set_xlabel("0: as good as AdamW at 0.001; dotted: the ceiling")
        return picture(figure, ("png",))["png"]


def _rate_figure(rates: pd.DataFrame) -> bytes:
    """The rates of all runs of a few tasks, spread over the families, beside a cosine from the same start."""
    tasks = rates.groupby("family", sort=True).task.unique()
    chosen = [own[i] for i in range(max(map(len, tasks))) for own in tasks if i < len(own)][:_FEW]
    rows = -(-len(chosen) // 2)
    shown = rates[rates.task.isin(chosen)]
    reach = min(_LEAST_RATE, shown.lr.min() / 1.5), 1.5 * max(shown.lr.max(), shown.cosine_rate.max())
    with canvas(0.6 + 1.6 * rows, 6.4) as figure:
        panels = list(figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).flat)
        for axes, task in zip(panels, chosen, strict=False):
            _rate_panel(axes, rates[rates.task == task], str(task), reach)
        for axes in panels[len(chosen) :]:
            axes.set_visible(False)
        figure.supxlabel("share of the run", fontsize=9)
        figure.supylabel("learning rate; dashed: the best cosine of 7 rates", fontsize=9)
        return picture(figure, ("png",))["png"]


def _rate_panel(axes: "Axes", rates: pd.DataFrame, task: str, reach: tuple[float, float]) -> None:
    for _, run in rates.groupby("seed"):
        axes.step([*run.progress, 1.0], [*run.lr, run.lr.iloc[-1]], where="post", color=_BLUE, alpha=0.6, linewidth=1.0)
    at = np.linspace(0.0, 0.99, 100)
    axes.plot(at, rates.cosine_rate.iloc[0] * 0.5 * (1 + np.cos(math.pi * at)), color=_ORANGE, linestyle="--", linewidth=1.0)
    axes.set_yscale("log")
    axes.set_ylim(*reach)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(labelsize=8)
    axes.set_title(label(_short(task), 34), fontsize=7.5)


def _short(task: str) -> str:
    family, template, horizon, _ = task.split("/")
    return f"{family} {template[:14]} N={horizon}"
