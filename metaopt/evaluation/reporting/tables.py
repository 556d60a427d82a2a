"""The tables of a report as text, from the tables of its results."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from metaopt.evaluation.reporting.cells import NOTHING, Table, interval, line_name, number, pivot, share, told
from metaopt.evaluation.reporting.verdict import decision
from metaopt.evaluation.tables.results import Results

__all__ = [
    "branch_table",
    "contrast_tables",
    "cost_tables",
    "failure_table",
    "gap_table",
    "headline_tables",
    "level_tables",
    "planning_tables",
    "task_tables",
    "tunability_table",
]

_DECISIONS = {
    "better": "better",
    "worse": "worse",
    "better?": "better by interval",
    "worse?": "worse by interval",
    "open": "open",
}
_FOLDED_TASKS = 12  # a table of more rows than these is folded away where another one shows the same tasks


def headline_tables(results: Results) -> list[Table]:
    """Return the headline, and everything else that is known of a line."""
    rows = results.summary.to_dict("records")
    strong = frozenset(i for i, row in enumerate(rows) if row["kind"] == "learner")
    first = Table(
        ("line", "score", "speed-up", "final loss", "P(better)", "failed", "cut"),
        [
            (
                line_name(row),
                *(interval(row, "score"), interval(row, "speed_up"), interval(row, "final_loss", 3), interval(row, "improvement")),
                *(share(row["failures"], row["runs"]), share(row["censored"], row["runs"])),
            )
            for row in rows
        ],
        strong,
    )
    shown = {
        "train_loss": ("training loss", 3),
        "anytime": ("anytime", 3),
        "anytime_train": ("anytime, training", 3),
        "mean_score": ("mean score", 2),
        "median_score": ("median score", 2),
        "worst_decile": ("worst decile", 2),
        "optimality_gap": ("optimality gap", 2),
        "constant_rate_speed_up": ("constant-rate speed-up", 2),
        "saturated": ("saturated", 0),
        "algoperf": ("AlgoPerf", 2),
        "algoperf_fixed": ("AlgoPerf, fixed", 2),
        "geometric_speed_up": ("geometric speed-up", 2),
        "meta_seeds": ("meta-seeds", 0),
    }
    kept = [name for name in shown if results.summary[name].notna().any()]
    more = [
        (line_name(row), *(interval(row, name) if f"{name}_low" in row else number(row[name], shown[name][1]) for name in kept))
        for row in rows
    ]
    return [first, Table(("line", *(shown[name][0] for name in kept)), more, strong, "Training, anytime and other aggregates", folded=True)]


def task_tables(results: Results) -> list[Table]:
    """Return medians over runs of every line on every task, and what the tasks are."""
    lines, tasks = [line_name(row) for row in results.summary.to_dict("records")], list(results.curves)
    measures = {
        "score": ("Score", 2),
        "final_loss": ("Final held-out loss", 4),
        "train_loss": ("Final training loss", 4),
        "speed_up": ("Speed-up", 2),
        "steps_to_target": ("Steps to the target", 0),
    }
    tables = [
        Table(
            ("task", *lines),
            pivot(results.tasks, name, lines, tasks, digits),
            caption=f"{title} (median over runs)",
            folded=i > 0 or len(tasks) > _FOLDED_TASKS,
        )
        for i, (name, (title, digits)) in enumerate(measures.items())
    ]
    learners = list(dict.fromkeys(results.tasks.learner[results.tasks.kind == "learner"]))
    inside = {(row["task"], row["learner"]): row["inside_support"] for row in results.tasks.to_dict("records") if row["kind"] == "learner"}
    what = [
        (
            *(str(row["task"]), str(row["family"]), str(row["template"]), str(row["horizon_steps"]), number(row["target"], 4)),
            *(str(row["target_by"] or NOTHING), briefly(row["reference"]), str(row["kinds"])),
            *(told(inside.get((row["task"], learner))) for learner in learners),
        )
        for row in results.targets.to_dict("records")
    ]
    columns = (
        "task",
        "family",
        "template",
        "steps",
        "target",
        "set by",
        "reference",
        "kinds",
        *(f"{name}: trained for" for name in learners),
    )
    return [*tables, Table(columns, what, caption="Tasks, targets and references", folded=True)] if what else tables


def contrast_tables(contrasts: pd.DataFrame) -> list[Table]:
    """Return the planned contrasts with corrected p-values, and what they decide; one table a learner."""
    columns = ("against", "decision", "score difference", "Holm p", "P(better)", "p")
    return [
        Table(columns, [_contrast(row) for row in contrasts[contrasts.learner == learner].to_dict("records")], caption=str(learner))
        for learner in dict.fromkeys(contrasts.learner)
    ]


def gap_table(gaps: pd.DataFrame) -> Table:
    """Return the score inside a learner's training support minus outside."""
    rows = [(row["learner"], interval(row, "gap"), str(row["inside_tasks"]), str(row["outside_tasks"])) for row in gaps.to_dict("records")]
    return Table(("learner", "gap in score", "tasks inside", "tasks outside"), rows)


def level_tables(results: Results) -> list[Table]:
    """Return score and retention of every line at every level, and for which levels the learners were trained."""
    levels = results.levels.to_dict("records")
    names, lines = list(dict.fromkeys(results.levels.level)), list(dict.fromkeys(line_name(row) for row in levels))
    found: dict[tuple[str, Any], Mapping[str, Any]] = {(line_name(row), row["level"]): row for row in levels}
    learners = {line_name(row) for row in levels if row["kind"] == "learner"}
    strong = frozenset(i for i, line in enumerate(lines) if line in learners)

    def cells(line: str, told_of: Callable[[Mapping[str, Any]], str]) -> list[str]:
        return [line, *(told_of(found[line, name]) if (line, name) in found else NOTHING for name in names)]

    columns = ("line", *map(str, names))
    score = [cells(line, lambda row: interval(row, "score")) for line in lines]
    kept = [cells(line, lambda row: interval(row, "retention")) for line in lines]
    inside = [cells(line, lambda row: told(row["inside_support"])) for line in lines if line in learners]
    return [
        Table(columns, score, strong, "Score at each level"),
        Table(columns, kept, strong, "Retention: the score over that at home", folded=True),
        Table(columns, inside, caption="Trained for this level?"),
    ]


def branch_table(branches: pd.DataFrame) -> Table:
    """Return break points, slopes and areas of each line on both sides of home."""
    rows = branches.to_dict("records")
    cells = [
        (
            line_name(row),
            *(
                str(row["direction"]),
                interval(row, "s50", 1),
                interval(row, "slope", 3),
                interval(row, "area"),
                told(row["falls_throughout"]),
            ),
        )
        for row in rows
    ]
    strong = frozenset(i for i, row in enumerate(rows) if row["kind"] == "learner")
    return Table(("line", "direction", "s50", "slope a doubling", "area", "only falls"), cells, strong, "Break points", folded=True)


def planning_tables(planning: pd.DataFrame) -> list[Table]:
    """Return the score of every learner by its planning horizon, and by the horizon of the tasks where these differ."""
    rows = planning.to_dict("records")
    whole = [row for row in rows if row["horizon_steps"] != row["horizon_steps"]]
    horizons = sorted({int(row["horizon_steps"]) for row in rows if row["horizon_steps"] == row["horizon_steps"]})
    found = {(row["learner"], row["horizon_steps"]): row for row in rows}
    strong = frozenset(range(len(whole)))
    names = [(str(row["learner"]), str(row["method"]), str(row["planning_steps"])) for row in whole]
    first = [(*name, interval(row, "score"), str(row["tasks"])) for name, row in zip(names, whole, strict=True)]
    tables = [Table(("learner", "method", "planning horizon", "score", "tasks"), first, strong)]
    if len(horizons) > 1:
        cells = [
            (*name, *(interval(found[key], "score") if (key := (name[0], float(steps))) in found else NOTHING for steps in horizons))
            for name in names
        ]
        columns = ("learner", "method", "planning horizon", *(f"{steps} steps" for steps in horizons))
        tables.append(Table(columns, cells, strong, "Score by the horizon of the tasks", folded=True))
    return tables


def tunability_table(tunability: pd.DataFrame) -> Table:
    """Return the expected loss and the score of each baseline at each number of trials."""
    trials = sorted(set(tunability.trials))
    found = {(row["baseline"], row["trials"]): row for row in tunability.to_dict("records")}
    nothing = {"expected_loss": None, "score": None}
    rows = [
        (name, *(number(found.get((name, k), nothing)[what], 3) for what in ("expected_loss", "score") for k in trials))
        for name in dict.fromkeys(tunability.baseline)
    ]
    return Table(("baseline", *(f"loss, K={k}" for k in trials), *(f"score, K={k}" for k in trials)), rows)


def failure_table(failures: pd.DataFrame) -> Table:
    """Return failed runs by line, task and reason."""
    rows = [(line_name(row), str(row["task"]), str(row["reason"]), str(row["runs"])) for row in failures.to_dict("records")]
    return Table(("line", "task", "reason", "runs"), rows)


def cost_tables(timings: Mapping[str, Any]) -> list[Table]:
    """Return what steps cost: the ratio to the reference and wall-clock speed-ups, and milliseconds a step; nothing that was not timed."""
    tables = []
    if ratios := timings.get("wall_clock"):
        rows = [(str(row["learner"]), number(row["step_ratio"]), number(row["speed_up"])) for row in ratios]
        tables.append(Table(("learner", "its step over the reference's", "wall-clock speed-up"), rows))
    if steps := timings.get("step_seconds"):
        lines, tasks = (list(dict.fromkeys(str(row[name]) for row in steps)) for name in ("line", "task"))
        found = {(str(row["task"]), str(row["line"])): row["seconds"] for row in steps}
        cells = [(task, *(_milliseconds(found.get((task, line))) for line in lines)) for task in tasks]
        tables.append(Table(("task", *lines), cells, caption="Milliseconds a step, one run", folded=len(tasks) > _FOLDED_TASKS))
    return tables


def briefly(reference: str) -> str:
    """Return `adamw, lr 0.03` of `adamw@lr=0.03,beta1=...` or `adamw@0.03`."""
    name, _, settings = str(reference).partition("@")
    rate = dict(part.partition("=")[::2] for part in settings.split(",")).get("lr", settings)
    try:
        return f"{name}, lr {float(rate):.2g}"
    except ValueError:
        return str(reference)


def _milliseconds(seconds: Any) -> str:
    return NOTHING if seconds is None or seconds != seconds else f"{1000.0 * float(seconds):.3g}"


def _contrast(row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (interval(row, "difference"), number(row["p_holm"], 4), interval(row, "improvement"), number(row["p_value"], 4))
    return (str(row["against"]), _DECISIONS[decision(row)], *numbers)
