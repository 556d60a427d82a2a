"""The tables of an evaluation: what each holds, and how a cell becomes JSON.

A **line** is (learner, kind, trials): a learner (kind `learner`, trials 1; several meta-seeds are one line) or a baseline at K trials (kind
`baseline`). Lines stand in the order in which learners and baselines were asked for, tasks by name, levels in the order of the axis; no
number of workers changes a row. In tables NaN (None for what is no number) is undefined and `inf` infinite; see `records`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from metaopt.baselines import Curves
from metaopt.evaluation.statistics.resampling import HEADLINE_META_SEEDS, HEADLINE_TASKS, under_covered
from metaopt.tasks import TaskSpec

__all__ = ["COLUMNS", "Results", "TaskCurves", "make_table", "records"]

_LINE = ("learner", "kind", "trials")


def _interval(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


COLUMNS: Mapping[str, tuple[str, ...]] = {
    "scores": (
        *("learner", "kind", "meta_seed", "trials", "task", "base", "level", "family", "seed", "learner_hash", "task_hash", "inner_seed"),
        *("horizon_steps", "inside_support", "settings", "first_loss", "final_loss", "final_train_loss", "score", "speed_up", "censored"),
        *("constant_rate_speed_up", "saturated", "steps_to_target", "anytime", "anytime_train", "failed", "reason"),
    ),
    "summary": (
        *(*_LINE, "meta_seeds", "tasks", "runs"),
        *(*_interval("score"), *_interval("final_loss"), *_interval("speed_up"), *_interval("constant_rate_speed_up")),
        *(*_interval("improvement"), "train_loss", "anytime", "anytime_train", "mean_score", "median_score", "worst_decile"),
        *("optimality_gap", "censored", "saturated", "failures", *_interval("failure_rate")),
        *("algoperf", "algoperf_fixed", "geometric_speed_up"),
    ),
    "tasks": (
        *(*_LINE, "task", "first_loss", "final_loss", "train_loss", "score", "speed_up", "steps_to_target", "failures", "inside_support"),
    ),
    "targets": ("task", "family", "template", "horizon_steps", "target", "target_by", "reference", "kinds"),
    "contrasts": ("learner", "against", *_interval("difference"), *_interval("improvement"), "p_value", "p_holm"),
    "gaps": ("learner", "inside_tasks", "outside_tasks", *_interval("gap")),
    "score_profile": (*_LINE, "tau", "value", "low", "high"),
    "time_profile": (*_LINE, "tau", "value", "low", "high"),
    "tunability": ("baseline", "trials", "expected_loss", "score"),
    "levels": (*_LINE, "level", "factor", "inside_support", *_interval("score"), *_interval("retention")),
    "branches": (*_LINE, "direction", *_interval("s50"), *_interval("slope"), *_interval("area"), "falls_throughout"),
    "planning": ("method", "learner", "planning_steps", "horizon_steps", "tasks", *_interval("score")),
    "failures": (*_LINE, "task", "reason", "runs"),
}


@dataclass(frozen=True)
class TaskCurves:
    """What is drawn for one task: its reference (`baseline@settings`) and curves by label, all meta-seeds of a learner side by side."""

    spec: TaskSpec
    reference: str
    learners: dict[str, Curves] = field(default_factory=dict)
    baselines: dict[str, Curves] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """Everything in a report that does not depend on the clock.

    "Interval" below stands for three columns, `NAME`, `NAME_low`, `NAME_high`: a value and its 95 % percentile interval. Losses are
    normalised and held out unless they say train. A failed run (diverged, not finite, above its first loss, given up) has the worst of
    everything: the task's cap as losses, score and speed-ups 0, no time to the target. `COLUMNS` has all names in order.

    Attributes:
        provenance: versions, seeds and hashes; `suite`, `learners` and `seeds` among them.
        notes: what a reader must know, one sentence each.
        curves: task -> what is drawn, by task name.
        scores: one row a run, sorted by kind (learners first), learner, trials, meta-seed, task, seed. `learner`, `kind`, `meta_seed`,
            `trials`; `task`, `base`, `level` (None without an axis), `family`; `seed` (index) and `inner_seed`; `learner_hash`,
            `task_hash`, `horizon_steps`; `inside_support` (True, False, None: no card, or one that does not say); `settings` (text of a
            baseline's trial, None for learners); `first_loss`, `final_loss`, `final_train_loss`; `score` (0: no change, 1: the median
            fall of the task's reference); `speed_up` and whether it is `censored`; `constant_rate_speed_up` (NaN without an envelope) and
            whether that is `saturated`; `steps_to_target` (NaN: missed, or the task has no target); `anytime`, `anytime_train` (mean loss
            over log steps); `failed` and its `reason` (None).
        summary: one row a line. `meta_seeds`, `tasks` and `runs` are counts. Interquartile means with intervals: `score`, `final_loss`,
            `speed_up`, `constant_rate_speed_up` (NaN without envelopes); `improvement` is the probability that a run ends lower than one
            of the reference on the same task, an interval. Interquartile means: `train_loss`, `anytime`, `anytime_train`. Of `score`:
            `mean_score`, `median_score` (of task means), `worst_decile`, `optimality_gap`. Counts of runs: `censored`, `saturated`,
            `failures`; `failure_rate` with its exact binomial interval. From times to the target, over the tasks that have one:
            `algoperf` (field: all learners and baselines at the largest number of trials; NaN for other lines), `algoperf_fixed` and
            `geometric_speed_up` (against one frozen baseline, which a note names: `adamw`, or else the first baseline, at the largest
            number of trials). A miss counts as one step more than the horizon, so that the
            latter says little where the frozen baseline needs nearly all steps.
        tasks: one row a line and task that it can run on. Medians over runs: `first_loss`, `final_loss`, `train_loss`, `score`,
            `speed_up`, `steps_to_target` (NaN: missed by half of the runs, or no target); `failures` (runs) and `inside_support`.
        targets: one row a task. `family`, `template`, `horizon_steps`; `target` (loss, NaN where a task starts at it) and the tuned
            baseline that it is `target_by`; the `reference` (`baseline@settings`); `kinds` of learners that can run on it, as text.
        contrasts: every learner `against` the reference and every baseline at the largest number of trials (`adamw K=15`), on the
            tasks that the learner can run on. `difference` of the interquartile means of `score`, paired, and `improvement` (probability
            that the learner ends lower), intervals; `p_value` of a permutation test and `p_holm`, corrected for all rows.
        gaps: one row a learner whose card says what it was trained on, if it met both: score on the `inside_tasks` of its training
            support minus score on the `outside_tasks` (counts); `gap` is an interval, positive where the learner does worse outside.
        score_profile: share of runs of a line with a score above `tau`: `value` with `low` and `high`, pointwise.
        time_profile: share of tasks that a line solves within `tau` times the frozen baseline's time, likewise.
        tunability: one row a `baseline` and number of `trials`. `expected_loss` of the best of so many random trials of its search, on
            tuning seeds, interquartile mean over tasks (one trial is the mean trial, not the default); `score` of the trial that was
            chosen, on evaluation seeds (NaN where no line has so many trials).
        levels: on a suite with an axis, one row a level of every learner, and of every baseline at the smallest and largest number of
            trials. `factor` (multiple of home, NaN without an order), `inside_support` (True where all base tasks are inside), `score`
            and `retention` (score over that at home, NaN where that is not positive), intervals.
        branches: where levels have factors, one row a line and `direction` (`up`, `down`). Intervals: `s50` (first shift with less than
            half of the score at home; `inf` if there is none), `slope` of the retention a doubling, `area` (mean score over log shift);
            `falls_throughout`.
        planning: where learners planned for at least two different horizons, one row a learner whose planning horizon is known, on all of
            its tasks (`horizon_steps` NaN) and on its tasks of each horizon. `method`: what the learner has in common with others that
            differ from it in their meta-parameters; `planning_steps`: inner steps that meta-training saw; `tasks` is a count; `score` is
            an interval.
        failures: `runs` that failed, by line, `task` and `reason`.
    """

    provenance: dict[str, Any]
    notes: list[str]
    curves: dict[str, TaskCurves]
    scores: pd.DataFrame
    summary: pd.DataFrame
    tasks: pd.DataFrame
    targets: pd.DataFrame
    contrasts: pd.DataFrame
    gaps: pd.DataFrame
    score_profile: pd.DataFrame
    time_profile: pd.DataFrame
    tunability: pd.DataFrame
    levels: pd.DataFrame
    branches: pd.DataFrame
    planning: pd.DataFrame
    failures: pd.DataFrame

    @property
    def warnings(self) -> list[str]:
        """What stands above the tables: which learners have too few meta-seeds or tasks for their intervals. Levels of a task are one."""
        learners = self.scores[self.scores.kind == "learner"]
        counts = learners.groupby("learner", sort=False).agg(meta_seeds=("meta_seed", "nunique"), tasks=("base", "nunique"))
        few: dict[tuple[int, int], list[str]] = {}
        for name, meta_seeds, tasks in counts.itertuples():
            if under_covered(meta_seeds, tasks):
                few.setdefault((meta_seeds, tasks), []).append(name)
        found = []
        for (meta_seeds, tasks), names in few.items():
            who = "" if len(names) == len(counts) else f" ({', '.join(names)})"
            found.append(
                f"Under-covered{who}: {_count(meta_seeds, 'meta-seed')} and {_count(tasks, 'task')}; 95 % intervals here hold less than "
                f"95 % (a headline needs {HEADLINE_META_SEEDS} and {HEADLINE_TASKS})."
            )
        return found


def make_table(name: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as the table `name`, with its columns in order also where there is no row.

    Raises:
        ValueError: a row whose columns are not those of the table.
    """
    lines = list(rows)
    for row in lines:
        if set(row) != set(COLUMNS[name]):
            raise ValueError(f"a row of table {name!r} differs in columns {sorted(set(row) ^ set(COLUMNS[name]))}")
    return pd.DataFrame(lines, columns=list(COLUMNS[name]))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON values: undefined ones are null, infinite ones the texts `inf` and `-inf`."""
    return [{name: _json(value) for name, value in row.items()} for row in table.to_dict("records")]


def _json(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0.0 else "-inf"
    return value


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
