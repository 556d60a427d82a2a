"""Profiles of every line as tables: the distribution of scores, and of times relative to a frozen baseline."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaopt.evaluation.statistics.profiles import score_profile_band, time_profile_band
from metaopt.evaluation.statistics.resampling import Array, Band
from metaopt.evaluation.tables.lines import Board, Line, generator
from metaopt.evaluation.tables.results import make_table
from metaopt.evaluation.tables.target_times import TargetTimes

__all__ = ["score_profile_table", "time_profile_table"]

_SCORES = np.linspace(0.0, 2.0, 41)  # 0 is no change, 1 the reference
_RATIOS = 2.0 ** np.linspace(-2.0, 2.0, 33)  # eight points a doubling


def score_profile_table(board: Board, lines: Sequence[Line]) -> pd.DataFrame:
    """Return the table `score_profile`: the share of a line's runs with a score above each tau."""
    rows = []
    for line in lines:
        rows += _points(line, _SCORES, score_profile_band(board.cube(line, "score"), _SCORES, generator()))
    return make_table("score_profile", rows)


def time_profile_table(times: TargetTimes, lines: Sequence[Line]) -> pd.DataFrame:
    """Return the table `time_profile`: the share of a line's tasks solved within each multiple of the frozen baseline's time."""
    rows = []
    for line in lines:
        if tasks := times.tasks(line):
            ours, frozen = (times.board.cube(one, "steps_to_target", tasks, times=True) for one in (line, times.frozen))
            rows += _points(line, _RATIOS, time_profile_band(ours, frozen, _RATIOS, generator()))
    return make_table("time_profile", rows)


def _points(line: Line, taus: Array, band: Band) -> list[dict[str, object]]:
    points = zip(*(one.tolist() for one in (taus, band.value, band.low, band.high)), strict=True)
    return [{**line.columns, "tau": tau, "value": value, "low": low, "high": high} for tau, value, low, high in points]
