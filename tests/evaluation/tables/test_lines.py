"""Cubes from rows: complete, in a fixed order, of the tasks that were asked for."""

import numpy as np
import pandas as pd
import pytest

from metaopt.evaluation.statistics.resampling import Interval
from metaopt.evaluation.tables.lines import Board, Line, columns_of, generator, only, score_cube

LINE = Line("mine", "learner", 1)


def table(meta_seeds=2, tasks=("b", "a"), seeds=3, **columns):
    rows = [
        {"learner": "mine", "kind": "learner", "trials": 1, "meta_seed": i, "task": task, "seed": k, "score": 100 * i + 10 * ord(task) + k}
        for i in range(meta_seeds)
        for task in tasks
        for k in range(seeds)
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_a_cube_has_the_axes_of_the_rows_whatever_their_order():
    rows = table()
    cube = score_cube(rows.sample(frac=1.0, random_state=0), "score")
    assert cube.values.shape == (2, 2, 3)
    assert (cube.tasks, cube.seeds, cube.meta_seeds) == (("a", "b"), (0, 1, 2), (0, 1))
    assert cube.values[1, 1, 2] == 100 + 10 * ord("b") + 2


def test_a_missing_run_and_one_too_many_are_errors():
    rows = table()
    for wrong in (rows.iloc[1:], pd.concat([rows, rows.iloc[:1]]), rows[(rows.meta_seed == 0) | (rows.task == "a")]):
        with pytest.raises(ValueError, match="every run of 2 meta-seeds, 2 tasks, 3 seeds must be there once"):
            score_cube(wrong, "score")
    with pytest.raises(ValueError, match="finite"):
        score_cube(rows.assign(score=np.nan), "score")


def test_a_missed_target_is_infinite():
    rows = table(steps_to_target=[5.0, np.nan] * 6)
    assert sorted(set(score_cube(rows, "steps_to_target", times=True).values.ravel())) == [5.0, np.inf]


def test_part_of_a_cube():
    cube = score_cube(table(tasks=("c", "a", "b")), "score")
    part = only(cube, ["c", "a"])
    assert part.tasks == ("a", "c")
    assert (part.values == cube.values[:, [0, 2]]).all()
    with pytest.raises(ValueError, match="not in tuple"):
        only(cube, ["d"])


def test_a_board_knows_its_lines():
    rows = pd.concat([table(), table(meta_seeds=1, learner="sgd", kind="baseline", trials=15)])
    board = Board.of(rows)
    assert set(board.rows) == {LINE, Line("sgd", "baseline", 15)}
    assert board.tasks(LINE) == ("a", "b")
    assert board.cube(LINE, "score") is board.cube(LINE, "score")
    assert board.cube(LINE, "score", ["a"]).tasks == ("a",)
    assert [line.label for line in board.rows] == ["mine", "sgd K=15"]
    assert LINE.columns == {"learner": "mine", "kind": "learner", "trials": 1}


def test_support_needs_every_meta_seed():
    marks = [True] * 3 + [True] * 3 + [True] * 3 + [False] * 3
    assert Board.of(table(inside_support=marks)).support(LINE) == {"b": True, "a": False}
    unknown = pd.Series([None] * 3 + [True] * 9, dtype=object)
    assert Board.of(table(inside_support=unknown)).support(LINE) == {"b": None, "a": True}


def test_generators_are_equal_and_undefined_values_have_no_ends():
    assert generator().integers(1 << 60) == generator().integers(1 << 60)
    assert columns_of("x", Interval(1.0, 0.5, np.inf)) == {"x": 1.0, "x_low": 0.5, "x_high": np.inf}
    assert np.isnan(list(columns_of("x", Interval(np.nan, -np.inf, np.inf)).values())).all()
