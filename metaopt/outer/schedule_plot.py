"""A picture of a learned schedule, beside the one that meta-training began with."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from metaopt.learners.hypergradients.schedule import LEARNABLE, ScheduledLearner, hyperparameters_at
from metaopt.learners.update_rules import Theta

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_schedule"]

_POINTS = 400
_PANEL = (7.0, 2.2)  # inches of one hyperparameter


def plot_schedule(learner: ScheduledLearner, theta: Theta, directory: Path) -> Path:
    """Write `schedule.png`, one panel a learned hyperparameter over the fraction of the horizon; return its path."""
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    directory.mkdir(exist_ok=True)
    figure = Figure(figsize=(_PANEL[0], _PANEL[1] * len(learner.learn) + 0.6), layout="constrained")
    panels = figure.subplots(len(learner.learn), sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, learner.learn, strict=True):
        _draw(axes, name, learner, theta)
    panels[0].set_title(f"Learned schedule of {learner.rule.name}")
    panels[0].legend()
    panels[-1].set_xlabel("fraction of the horizon")
    path = directory / "schedule.png"
    figure.savefig(path, dpi=120)
    return path


def _draw(axes: "Axes", name: str, learner: ScheduledLearner, theta: Theta) -> None:
    """Draw one hyperparameter: its start and what was learned. A momentum is drawn as its distance from 1, which is what acts."""
    steps, end = range(_POINTS + 1), torch.tensor(float(_POINTS), dtype=torch.float64)
    near_one = LEARNABLE[name] == "logit"
    for values, style, label in ((learner.init_theta(0), "--", "start"), (theta, "-", "learned")):
        own = {name: values[name].double()}
        found = [float(hyperparameters_at(own, learner.shape, torch.tensor(t), end)[name]) for t in steps]
        shown = [1.0 - value for value in found] if near_one else found
        axes.plot(
            [t / _POINTS for t in steps], shown, style, label=label, drawstyle="steps-post" if learner.shape == "constant" else "default"
        )
    axes.set_yscale("log")
    axes.set_ylabel(f"1 - {name}" if near_one else name)
    axes.grid(alpha=0.3, which="both")
