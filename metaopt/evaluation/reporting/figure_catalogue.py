"""Which figures a report has, by name, and how each is drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from metaopt.evaluation.reporting.axis_figures import axis_figure
from metaopt.evaluation.reporting.canvas import Line, lines_of
from metaopt.evaluation.reporting.curve_figures import curve_figure, drawn_curves
from metaopt.evaluation.reporting.headline_figures import headline_figure, task_strip, tunability_figure
from metaopt.evaluation.reporting.planning_figure import planning_figure
from metaopt.evaluation.reporting.profile_figures import profile_figure
from metaopt.evaluation.reporting.verdict import axis_name
from metaopt.evaluation.tables.results import Results, TaskCurves

__all__ = ["Drawable", "catalogue", "curves_name"]

Draw = Callable[[Sequence[str]], dict[str, bytes]]


@dataclass(frozen=True)
class Drawable:
    """A figure that can be drawn.

    Attributes:
        caption: what it shows, for those who see it and those who do not.
        draw: maps formats (`png`, `svg`) to bytes by format.
    """

    caption: str
    draw: Draw


def catalogue(results: Results) -> Mapping[str, Drawable]:
    """Return every figure that the results have data for, by name; curves of a task as `curves_name` has it."""
    lines = lines_of(results.summary)
    found: dict[str, Drawable] = {}

    def add(name: str, caption: str, draw: Draw) -> None:
        found[name] = Drawable(caption, draw)

    add(
        "headline",
        "Score and speed-up of every line with 95 % intervals",
        partial(headline_figure, results.summary, lines, tuple(_HEADLINES)),
    )
    for measure, caption in _HEADLINES.items():
        add(measure, caption, partial(headline_figure, results.summary, lines, (measure,)))
    if len(results.levels):
        axis, words = axis_name(results), _words(results)
        for measure, caption in _LEVELS.items():
            if results.levels[measure].notna().any():
                add(
                    f"axis-{measure}", caption.format(**words), partial(axis_figure, measure, axis, results.levels, results.branches, lines)
                )
    if len(results.planning):
        add("planning", _PLANNING, partial(planning_figure, results.planning, results.summary, lines))
    if len(results.tasks):
        order = [task for task in results.curves if (results.tasks.task == task).any()]
        add("tasks", "Median score of every line on every task", partial(task_strip, results.tasks, lines, order))
    for which, caption in _PROFILES.items():
        profile = getattr(results, which)
        if len(profile):
            add(which, caption, partial(profile_figure, which, profile, lines))
    if len(results.tunability):
        add("tunability", "Expected best held-out loss over trials", partial(tunability_figure, results.tunability, lines))
    for task, one in results.curves.items():
        add(curves_name(task), f"Held-out and training loss on {task}", partial(_task_curves, task, one, lines))
    return found


def curves_name(task: str) -> str:
    """Return the name of the figure with a task's curves; it can be a file's name, whatever the task is called."""
    return "curves-" + quote(task, safe="@+=, ")


def _words(results: Results) -> dict[str, str]:
    """Return what captions of an axis say of it."""
    axis = results.provenance.get("axis")
    words = {"axis": axis_name(results), "home": f" ({axis['home']})" if isinstance(axis, Mapping) and "home" in axis else ""}
    if not len(results.branches):
        return {**words, "shaded": "", "stars": ""}
    return {**words, "shaded": "; shaded: every learner that says so was", "stars": "; stars: where a learner falls below one half of it"}


def _task_curves(task: str, curves: TaskCurves, lines: Sequence[Line], formats: Sequence[str]) -> dict[str, bytes]:
    return curve_figure(task, drawn_curves(lines, curves.learners, curves.baselines), formats)


_HEADLINES = {
    "score": "Score with 95 % intervals; the rule is the reference",
    "speed_up": "Speed-up in steps with 95 % intervals; the rule is the reference",
}
_LEVELS = {
    "score": (
        "Score along {axis}. Filled marks: the learner was trained for this level, open: it was not, grey: unknown{shaded}. Baselines are "
        "paler at their smallest number of trials."
    ),
    "retention": "Retention along {axis}: the score over that at home{home}{stars}.",
}
_PLANNING = (
    "Score over the planning horizon of meta-training, one line a method, with 95 % intervals. Shaded: the horizons of the tasks; level "
    "lines: baselines at their largest number of trials; the rule is the reference."
)
_PROFILES = {
    "score_profile": "Score profile: share of runs above each score, with pointwise 95 % intervals",
    "time_profile": "Time profile: share of tasks solved within each multiple of the frozen baseline's steps",
}
