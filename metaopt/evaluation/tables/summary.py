"""The headline table: one line a learner, and a baseline at each number of trials, with intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaopt.evaluation.scores.run_scores import failure_rate
from metaopt.evaluation.scores.targets import task_times
from metaopt.evaluation.statistics.aggregates import interquartile_mean, median_of_task_means, optimality_gap, overall_mean, worst_decile
from metaopt.evaluation.statistics.improvement import probability_of_improvement
from metaopt.evaluation.statistics.named_axes import ScoreCube
from metaopt.evaluation.statistics.resampling import Interval, bootstrap
from metaopt.evaluation.tables.lines import Board, Line, columns_of, generator, only
from metaopt.evaluation.tables.results import make_table
from metaopt.evaluation.tables.target_times import TargetTimes

__all__ = ["summarise", "task_table"]

_STEPS = "steps_to_target"
_MEDIANS = {name: name for name in ("first_loss", "final_loss", "score", "speed_up", _STEPS)} | {"train_loss": "final_train_loss"}


def summarise(board: Board, lines: Sequence[Line], reference: ScoreCube, times: TargetTimes) -> pd.DataFrame:
    """Return the table `summary`; see `results.Results` for its columns.

    Args:
        board: rows of all lines.
        lines: those wanted, in order.
        reference: final losses of the best scheduled baseline of every task, on the same seeds.
        times: to the targets.

    Every line uses an equal generator, so that equal scores have equal intervals.
    """
    return make_table("summary", (_line(board, line, reference, times) for line in lines))


def task_table(board: Board, lines: Sequence[Line]) -> pd.DataFrame:
    """Return the table `tasks`: medians over the runs of each line on each task."""
    rows = []
    for line in lines:
        tasks, failures, inside = board.tasks(line), board.rows[line].groupby("task").failed.sum(), board.support(line)
        medians = {name: task_times(board.cube(line, column, times=column == _STEPS).values) for name, column in _MEDIANS.items()}
        medians[_STEPS] = np.where(np.isinf(medians[_STEPS]), np.nan, medians[_STEPS])
        for j, task in enumerate(tasks):
            values = {name: float(median_J[j]) for name, median_J in medians.items()}
            rows.append({**line.columns, "task": task, **values, "failures": int(failures[task]), "inside_support": inside[task]})
    return make_table("tasks", rows)


def _line(board: Board, line: Line, reference: ScoreCube, times: TargetTimes) -> dict[str, object]:
    rows, score, loss = board.rows[line], board.cube(line, "score"), board.cube(line, "final_loss")
    best = only(reference, score.tasks).negated()
    failures = int(rows.failed.sum())
    return {
        **line.columns,
        "meta_seeds": len(score.meta_seeds),
        "tasks": len(score.tasks),
        "runs": len(rows),
        **columns_of("score", _interquartile(score)),
        **columns_of("final_loss", _interquartile(loss)),
        **columns_of("speed_up", _interquartile(board.cube(line, "speed_up"))),
        **columns_of("constant_rate_speed_up", _constant_rate(board, line)),
        **columns_of("improvement", bootstrap([loss.negated(), best], probability_of_improvement, generator())),
        "train_loss": float(interquartile_mean(board.cube(line, "final_train_loss").values)),
        "anytime": float(interquartile_mean(board.cube(line, "anytime").values)),
        "anytime_train": float(interquartile_mean(board.cube(line, "anytime_train").values)),
        "mean_score": float(overall_mean(score.values)),
        "median_score": float(median_of_task_means(score.values)),
        "worst_decile": float(worst_decile(score.values)),
        "optimality_gap": float(optimality_gap(score.values)),
        "censored": int(rows.censored.sum()),
        "saturated": int(rows.saturated.sum()),
        "failures": failures,
        **columns_of("failure_rate", failure_rate(failures, len(rows))),
        **times.headline(line),
    }


def _interquartile(cube: ScoreCube) -> Interval:
    return bootstrap([cube], interquartile_mean, generator())


def _constant_rate(board: Board, line: Line) -> Interval:
    """Return the speed-up over constant rates; undefined where the envelope of some task is not known."""
    if board.rows[line].constant_rate_speed_up.isna().any():
        return Interval(float("nan"), float("nan"), float("nan"))
    return _interquartile(board.cube(line, "constant_rate_speed_up"))
