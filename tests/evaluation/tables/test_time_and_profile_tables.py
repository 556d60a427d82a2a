"""Times to targets by line, benchmark scores and profiles, on boards made by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from metaopt.evaluation.tables.lines import Board, Line
from metaopt.evaluation.tables.profile_tables import score_profile_table, time_profile_table
from metaopt.evaluation.tables.target_times import TargetTimes

A, B, C = (Line(name, "learner", 1) for name in "ABC")
FROZEN = Line("adamw", "baseline", 15)


def board(times, scores=None):
    """Lines -> times of their tasks (NaN: missed), the same on three seeds."""
    rows = [
        {**line.columns, "meta_seed": 0, "task": task, "seed": seed, "steps_to_target": time, "score": (scores or {}).get(line, 1.0)}
        for line, tasks in times.items()
        for task, time in tasks.items()
        for seed in range(3)
    ]
    return Board.of(pd.DataFrame(rows))


def times_of(times, field, horizons=None):
    return TargetTimes(board(times), horizons or {"u": 40, "v": 40}, tuple(field), FROZEN)


PAIR = {A: {"u": 10.0, "v": 20.0}, B: {"u": 20.0, "v": 10.0}, C: {"u": 5.0, "v": 5.0}, FROZEN: {"u": 10.0, "v": 10.0}}


def test_algoperf_depends_on_the_field_and_the_fixed_score_does_not():
    two, three = times_of(PAIR, (A, B)), times_of(PAIR, (A, B, C))
    assert two.headline(A)["algoperf"] == pytest.approx(5 / 6)
    assert two.headline(B)["algoperf"] == pytest.approx(5 / 6)
    assert three.headline(A)["algoperf"] == pytest.approx(1 / 3)
    assert three.headline(C)["algoperf"] == 1.0
    for times in (two, three):
        assert times.headline(A)["algoperf_fixed"] == pytest.approx(5 / 6)
        assert times.headline(A)["geometric_speed_up"] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(two.headline(C)["algoperf"]), "not in the field"
    assert two.headline(C)["geometric_speed_up"] == pytest.approx(2.0)


def test_the_frozen_baseline_is_one_against_itself():
    found = times_of(PAIR, (A, FROZEN)).headline(FROZEN)
    assert (found["algoperf_fixed"], found["geometric_speed_up"]) == (1.0, 1.0)


def test_a_miss_is_the_worst_time():
    missed = PAIR | {A: {"u": np.nan, "v": 10.0}}
    found = times_of(missed, (A, B)).headline(A)
    assert (found["algoperf"], found["algoperf_fixed"]) == (0.5, 0.5)
    assert found["geometric_speed_up"] == pytest.approx(math.sqrt(10 / 41))


def test_a_line_is_measured_on_its_own_tasks_and_those_with_a_target():
    some = PAIR | {C: {"u": 5.0}}
    times = times_of(some, (A, C))
    assert times.tasks(C) == ("u",)
    assert times.headline(C)["algoperf"] == 1.0
    assert times.headline(A)["algoperf"] == pytest.approx((2 / 3 + 1) / 2), "on v nobody else is in the field"
    without = times_of(PAIR, (A, B), {"v": 40})
    assert without.tasks(A) == ("v",)
    assert without.headline(A)["algoperf_fixed"] == pytest.approx(2 / 3)
    none = times_of(PAIR, (A, B), {"w": 40})
    assert all(math.isnan(value) for value in none.headline(A).values())
    assert time_profile_table(none, [A, B]).empty


def test_a_time_profile_counts_tasks_within_each_multiple():
    profile = time_profile_table(times_of(PAIR, (A,)), [A, FROZEN]).set_index(["learner", "tau"]).value
    assert (profile["A", 0.25], profile["A", 1.0], profile["A", 2.0], profile["A", 4.0]) == (0.0, 0.5, 1.0, 1.0)
    assert profile["adamw", 1.0] == 1.0
    assert profile["adamw"][:1.0].iloc[:-1].max() == 0.0, "never faster than itself"


def test_a_score_profile_counts_runs_above_each_score():
    made = board(PAIR, {A: 1.0, B: 0.0})
    profile = score_profile_table(made, [A, B]).set_index(["learner", "tau"])
    below = profile.loc["A"]
    assert below.value[below.index < 0.999].eq(1.0).all()
    assert below.value[below.index > 0.999].eq(0.0).all(), "above means more than"
    assert profile.loc["B"].value.eq(0.0).all()
    assert profile.low.le(profile.value).all()
    assert profile.high.ge(profile.value).all()
