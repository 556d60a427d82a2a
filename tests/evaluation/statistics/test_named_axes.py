"""The data cube: what it refuses, and that a run that is missing is a failure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.evaluation.statistics.named_axes import AXES, ScoreCube, cube_from_rows
from tests.evaluation.cubes import cube

PLAN = {"tasks": ("b", "a"), "seeds": (0, 1), "meta_seeds": (7, 8)}


def rows():
    """Scores that tell their run: 100 i + 10 j + k, with j counted in the sorted order of tasks."""
    return [
        {"meta_seed": meta, "task": task, "seed": seed, "score": 100.0 * i + 10.0 * j + seed}
        for i, meta in enumerate((7, 8))
        for j, task in enumerate(("a", "b"))
        for seed in (0, 1)
    ]


def test_swapped_axes_are_refused_even_when_the_shape_would_fit():
    values = np.zeros((1, 5, 5))
    names, seeds = tuple("abcde"), tuple(range(5))
    with pytest.raises(ValueError, match="axes must be"):
        ScoreCube(values, names, seeds, axes=("meta_seed", "seed", "task"))
    with pytest.raises(ValueError, match=r"values must be \[M, 3 tasks, 5 seeds\], got shape \(1, 5, 3\)"):
        ScoreCube(np.zeros((1, 5, 3)), tuple("abc"), seeds, axes=AXES)
    with pytest.raises(ValueError, match=r"values must be \[2 meta-seeds, J, K\], got shape \(1, 5, 5\)"):
        ScoreCube(values, names, seeds, (0, 1), axes=AXES)


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        (np.full((1, 1, 2), np.nan), {"tasks": ("a",)}, "values must be finite .* got 2 that are not"),
        (np.full((1, 1, 2), np.inf), {"tasks": ("a",)}, "values must be finite"),
        (np.full((1, 1, 2), np.nan), {"tasks": ("a",), "times": True}, "values must be finite"),
        (np.full((1, 1, 2), -np.inf), {"tasks": ("a",), "times": True}, "values must be finite"),
        (np.zeros((1, 2, 2)), {"tasks": ("a", "a")}, "tasks must be unique"),
        (np.zeros((1, 1, 2)), {"tasks": ("a",), "seeds": (3, 3)}, "seeds must be unique"),
        (np.zeros((2, 1, 2)), {"tasks": ("a",), "meta_seeds": (3, 3)}, "meta_seeds must be unique"),
        (np.zeros((1, 0, 2)), {"tasks": ()}, "values must be"),
        (np.zeros((2, 2)), {"tasks": ("a", "b")}, "values must be"),
    ],
)
def test_bad_cubes_are_refused(values, names, message):
    with pytest.raises(ValueError, match=message):
        ScoreCube(values, **({"seeds": (0, 1), "axes": AXES} | names))


@given(st.permutations(range(4)))
def test_tasks_are_sorted_whatever_their_order(order):
    values = np.arange(8.0).reshape(1, 4, 2)
    shuffled = ScoreCube(values[:, order], tuple("abcd"[i] for i in order), (0, 1), axes=AXES)
    assert shuffled.tasks == tuple("abcd")
    assert (shuffled.values == values).all()


def test_times_may_be_missed_and_keep_their_kind():
    times = cube([[[1.0, np.inf]]], times=True)
    assert times.values[0, 0, 1] == np.inf
    assert cube([[[1.0, 2.0]]]).negated().values.tolist() == [[[-1.0, -2.0]]]
    with pytest.raises(ValueError, match="finite"):
        times.negated()


def test_rows_find_their_place_in_any_order():
    for lines in (rows(), rows()[::-1]):
        scores, missing = cube_from_rows(lines, "score", -1.0, **PLAN)
        assert scores.values.tolist() == [[[0.0, 1.0], [10.0, 11.0]], [[100.0, 101.0], [110.0, 111.0]]]
        assert (scores.tasks, scores.seeds, scores.meta_seeds) == (("a", "b"), (0, 1), (7, 8))
        assert not missing.any()


@given(st.sets(st.integers(0, 7)), st.sampled_from([np.nan, np.inf, -np.inf, None]))
def test_missing_and_broken_rows_are_failures_with_the_worst_score(gone, broken):
    """Whether a row is absent or holds no number, the run counts with the worst score of its task."""
    worst = {"a": -5.0, "b": -6.0}
    absent = [row for i, row in enumerate(rows()) if i not in gone]
    useless = [row | {"score": broken} if i in gone else row for i, row in enumerate(rows())]
    whole, _ = cube_from_rows(rows(), "score", worst, **PLAN)
    for lines in (absent, useless):
        scores, missing = cube_from_rows(lines, "score", worst, **PLAN)
        assert missing.sum() == len(gone)
        assert set(scores.values[:, 0][missing[:, 0]]) <= {-5.0}
        assert set(scores.values[:, 1][missing[:, 1]]) <= {-6.0}
        assert (scores.values[~missing] == whole.values[~missing]).all()


def test_a_missed_target_is_a_time_but_a_missing_row_is_counted():
    lines = [row | {"score": np.inf if row["seed"] else 3.0} for row in rows()][1:]
    scores, missing = cube_from_rows(lines, "score", np.inf, **PLAN, times=True)
    assert missing.sum() == 1
    assert np.isinf(scores.values).sum() == 5


def test_rows_outside_the_plan_and_doubles_are_refused():
    with pytest.raises(ValueError, match=r"row \(9, 'a', 0\) .* was not planned"):
        cube_from_rows([*rows(), rows()[0] | {"meta_seed": 9}], "score", 0.0, **PLAN)
    with pytest.raises(ValueError, match=r"row \(7, 'a', 0\) .* is there twice"):
        cube_from_rows([*rows(), rows()[0]], "score", 0.0, **PLAN)
