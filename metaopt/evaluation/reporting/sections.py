"""The sections of a report in their order, from which every readable form is made; a section without data is not there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaopt.evaluation.reporting import tables
from metaopt.evaluation.reporting.cells import Table
from metaopt.evaluation.reporting.figure_catalogue import curves_name
from metaopt.evaluation.reporting.verdict import Verdict, axis_name, verdicts
from metaopt.evaluation.tables.results import Results

__all__ = ["Document", "Section", "document"]

_HOW = (
    "Losses are normalised (about 1 at initialisation, about 0 when solved) and measured on held-out examples; training loss stands beside "
    "them. Numbers over tasks are interquartile means over tasks and runs, with 95 % intervals from a stratified bootstrap in brackets.",
    "Reference: on each task, the best of all tuned baselines with a schedule, chosen on other seeds.",
    "Score: 0 for a run that ends where it began, 1 for one that ends at the reference's final loss.",
    "Speed-up: how many times the learner's steps the reference needs for the learner's final loss, its schedule stretched over up to four "
    "times the horizon. Above that a run is cut to 4 and counted as cut.",
    "P(better): probability that a run ends lower than one of the reference on the same task.",
    "A failed run (diverged, or worse at the end than at the start) counts with the worst loss, score 0 and speed-up 0; none is dropped.",
    "Of each baseline, K choices of rate, weight decay and decays were tried on other seeds and the best kept. Learners were not tuned.",
    "Better and worse are said where the interval of the difference excludes 0 and p, corrected after Holm over all contrasts, is at most "
    "0.05. By the interval: it excludes 0, but p is larger, as it has to be with few meta-seeds.",
)
_AXIS_HOW = (
    "Retention: score at a level over the score at home, the level of meta-training. s50: the factor at which it falls below one half, inf "
    "if it never does. Area: mean score over the logarithm of the factor.",
)


_PLANNING_HOW = (
    "Planning horizon: the inner steps that meta-training saw, which are the longest horizon of its tasks, or the window of an estimator "
    "that does not see beyond one. Learners of one method differ in their meta-parameters only.",
)


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it, in this order.

    Attributes:
        heading: its title.
        figures: names of figures.
        tables: as text.
        items: a list of sentences.
        pairs: names and values.
        links: names and where they lead, relative to the report.
        folded: whether a page may hide it until it is asked for.
        captioned: whether its figures need their captions to be understood.
    """

    heading: str
    figures: Sequence[str] = ()
    tables: Sequence[Table] = ()
    items: Sequence[str] = ()
    pairs: Sequence[tuple[str, str]] = ()
    links: Sequence[tuple[str, str]] = ()
    folded: bool = False
    captioned: bool = True


@dataclass(frozen=True)
class Document:
    """A report to be read: title, a verdict a learner, warnings, sections."""

    title: str
    verdicts: Sequence[Verdict]
    warnings: Sequence[str]
    sections: Sequence[Section]


def document(results: Results, timings: Mapping[str, Any], figures: Sequence[str]) -> Document:
    """Return the report to be read.

    Args:
        results: the tables.
        timings: what depends on the clock; may be empty.
        figures: names of those that exist.
    """
    title = f"Meta-generalization on suite {results.provenance['suite']}"
    return Document(title, verdicts(results), results.warnings, list(_sections(results, timings, figures)))


def _sections(results: Results, timings: Mapping[str, Any], figures: Sequence[str]) -> Iterator[Section]:
    def drawn(*names: str) -> list[str]:
        return [name for name in names if name in figures]

    yield Section("Headline", drawn("score", "speed_up"), tables.headline_tables(results))
    if len(results.levels):
        shown = tables.level_tables(results)
        if len(results.branches):
            shown.append(tables.branch_table(results.branches))
        yield Section(f"Along {axis_name(results)}", drawn("axis-score", "axis-retention"), shown)
    if len(results.planning):
        yield Section("Planning horizon", drawn("planning"), tables.planning_tables(results.planning))
    if len(results.gaps):
        yield Section("Inside and outside the training support", tables=[tables.gap_table(results.gaps)])
    if len(results.tasks):
        yield Section("Tasks", drawn("tasks"), tables.task_tables(results))
    if len(results.contrasts):
        yield Section("Contrasts", tables=tables.contrast_tables(results.contrasts))
    if profiles := drawn("score_profile", "time_profile"):
        yield Section("Profiles", profiles)
    if len(results.tunability):
        yield Section("What tuning buys", drawn("tunability"), [tables.tunability_table(results.tunability)])
    if len(results.failures):
        yield Section("Failures", tables=[tables.failure_table(results.failures)])
    if cost := tables.cost_tables(timings):
        yield Section("Cost", tables=cost, items=_clock(timings))
    if curves := drawn(*(curves_name(task) for task in results.curves)):
        yield Section("Curves", curves, folded=len(curves) > 8, captioned=False)
    if results.notes:
        yield Section("Notes", items=results.notes)
    how = (*_HOW, *(_PLANNING_HOW if len(results.planning) else ()), *(_AXIS_HOW if len(results.levels) else ()))
    yield Section("How to read this", items=how)
    yield Section("Provenance", pairs=_flat(results.provenance), folded=True)


def _clock(timings: Mapping[str, Any]) -> list[str]:
    """Return on what the times were taken."""
    found = []
    if "seconds" in timings and "workers" in timings:
        where = f"on {timings['workers']} workers" if timings["workers"] else "in one process"
        found.append(f"The evaluation took {timings['seconds']:.0f} s {where}; stored curves cost nothing.")
    if load := timings.get("load_average"):
        found.append(
            f"Load average while steps were timed: {', '.join(f'{one:.2f}' for one in load)}. On a busy machine trust ratios only."
        )
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
            pairs += _flat(value, f"{prefix}{key} / ")
        elif isinstance(value, Mapping):
            pairs.append((f"{prefix}{key}", ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items() if inner is not None)))
        elif value is not None:
            pairs.append((f"{prefix}{key}", _plain(value)))
    return pairs


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "; ".join(map(_plain, value))
    return " ".join(map(str, value.values())) if isinstance(value, Mapping) else str(value)
