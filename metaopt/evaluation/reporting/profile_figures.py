"""Figures of the two profiles: the share of runs that score above tau, and of tasks that are solved within tau times a baseline's time."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaopt.evaluation.reporting.canvas import Line, canvas, legend_below, legend_height, most_tuned, picture, shaded

__all__ = ["PROFILES", "profile_figure"]

PROFILES = {
    "score_profile": ("share of runs with a score above τ", "score τ (1: the reference)", False),
    "time_profile": ("share of tasks at the target within τ", "τ, times the frozen baseline's steps", True),
}


def profile_figure(which: str, profile: pd.DataFrame, lines: Sequence[Line], formats: Sequence[str]) -> dict[str, bytes]:
    """Return a profile of the learners, with pointwise intervals, and of the baselines at their largest number of trials.

    Args:
        which: a key of `PROFILES`.
        profile: rows of learner, kind, trials, tau, value, low, high.
        lines, formats: see `lines_of` and `picture`.
    """
    title, axis, logarithmic = PROFILES[which]
    shown = [line for line in most_tuned(lines) if len(line.rows(profile))]
    with canvas(2.9 + legend_height(shown)) as figure:
        axes = figure.subplots()
        for line in shown:
            rows = line.rows(profile).sort_values("tau")
            tau, value, low, high = (rows[name].to_numpy(dtype=np.float64) for name in ("tau", "value", "low", "high"))
            axes.plot(tau, value, **line.style)
            shaded(axes, line, tau, low, high)
        axes.axvline(1.0, color="#222222", linewidth=0.9, zorder=1)
        if logarithmic and (profile.tau > 0).all():
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(title=title, xlabel=axis, ylim=(-0.03, 1.03))
        legend_below(figure, shown)
        return picture(figure, formats)
