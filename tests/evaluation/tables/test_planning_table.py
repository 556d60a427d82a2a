"""The table of planning horizons: learners whose every score is known, grouped into methods."""

import json

import numpy as np
import pandas as pd
import pytest

from metaopt.errors import ConfigError
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.tables.lines import Board
from metaopt.evaluation.tables.planning_table import mixed_horizons, planning_table
from metaopt.evaluation.tables.results import records
from metaopt.learners import get
from tests.evaluation.synthetic import BEST, World, ending, line

SGD, ADAM = get("sgd"), get("adam")


def card(longest, window=None, outer_steps=5):
    said = {} if window is None else {"planning_horizon": window}
    return {"training": {"outer_steps": outer_steps, "support": {"horizon": [5, longest]}, "task_hashes": [], **said}}


def scoring(score):
    """Runs that score so much, where the reference ends at BEST."""
    return ending(1.0 - (1.0 - BEST) * score)


def tabulated(candidates, scores):
    learners = {(one.name, one.meta_seed): scoring(scores[one.name]) for one in candidates}
    return World(tasks=tuple("abcd"), learners=learners).run(candidates=candidates)


def test_learners_of_one_method_stand_by_their_horizon():
    """Further ahead is better here: 10 steps score 0.25, 40 steps 0.75, 160 steps 1; a truncated estimator counts with its window."""
    given = [
        Candidate("long", SGD, {}, card(160)),
        Candidate("other", ADAM, {}, card(40)),
        Candidate("windowed", SGD, {}, card(160, window=10)),
        Candidate("middle", SGD, {}, card(40)),
        Candidate("nobody-knows", SGD, {}),
    ]
    scores = {"long": 1.0, "other": 0.5, "windowed": 0.25, "middle": 0.75, "nobody-knows": 0.9}
    results = tabulated(given, scores)
    whole = results.planning[results.planning.horizon_steps.isna()]
    assert whole.method.tolist() == ["sgd"] * 3 + ["adam"]
    assert whole.learner.tolist() == ["windowed", "middle", "long", "other"]
    assert whole.planning_steps.tolist() == [10, 40, 160, 40]
    assert whole.score.tolist() == pytest.approx([0.25, 0.75, 1.0, 0.5])
    for row in whole.itertuples():
        same = line(results.summary, row.learner)
        assert (row.score, row.score_low, row.score_high) == (same.score, same.score_low, same.score_high), "the headline's bootstrap"
    json.dumps(records(results.planning), allow_nan=False)
    assert records(results.planning)[0]["horizon_steps"] is None


@pytest.mark.parametrize(
    "cards",
    [
        (None, None),
        (card(40), None),
        (card(40), card(40)),
        (card(40), {"training": {"support": {}, "task_hashes": []}}),
        (card(40), card(160, window=40)),
    ],
)
def test_nothing_appears_without_two_horizons(cards):
    given = [Candidate(f"l{i}", SGD, {}, one) for i, one in enumerate(cards)]
    results = tabulated(given, {"l0": 0.5, "l1": 0.6})
    assert results.planning.empty
    assert not any("planning" in note for note in results.notes)


def test_planners_without_a_card_say_how_far_they_look():
    """What a candidate says wins over its card, and `method` joins learners of different definitions."""
    given = [Candidate(f"block {k}", get("sgd", weight_decay=k / 100), {}, planning_horizon=k, method="block horizon") for k in (25, 1, 5)]
    given.append(Candidate("said", SGD, {}, card(160), planning_horizon=2))
    found = tabulated(given, {"block 25": 1.0, "block 1": 0.2, "block 5": 0.6, "said": 0.4}).planning
    whole = found[found.horizon_steps.isna()]
    assert list(whole[["method", "planning_steps"]].itertuples(index=False, name=None)) == [
        *(("block horizon", k) for k in (1, 5, 25)),
        ("sgd", 2),
    ]
    with pytest.raises(ConfigError, match=r"candidate 'block': planning_horizon must be >= 1 inner step, got 0"):
        Candidate("block", SGD, {}, planning_horizon=0)


def test_equal_rules_with_other_options_are_other_methods():
    given = [
        Candidate("one", SGD, {}, planning_horizon=1),
        Candidate("two", get("sgd", schedule="warmup_cosine"), {}, planning_horizon=2),
        Candidate("three", get("sgd", weight_decay=0.1), {}, planning_horizon=3),
        Candidate("four", SGD, {}, planning_horizon=4),
    ]
    found = tabulated(given, dict.fromkeys(("one", "two", "three", "four"), 0.5)).planning
    whole = found[found.horizon_steps.isna()]
    assert dict(zip(whole.learner, whole.method, strict=True)) == {"one": "sgd", "four": "sgd", "two": "sgd#2", "three": "sgd#3"}
    assert whole.learner.tolist() == ["one", "four", "two", "three"]


def test_meta_seeds_are_one_row_if_they_planned_alike():
    given = [Candidate("mine", SGD, {}, card(40), meta_seed=i) for i in range(2)]
    given += [Candidate("mixed", SGD, {}, card(10 * (i + 1)), meta_seed=i) for i in range(2)]
    given += [Candidate("partly", SGD, {}, card(10) if i else None, meta_seed=i) for i in range(2)]
    given.append(Candidate("far", SGD, {}, card(160)))
    results = tabulated(given, {"mine": 0.5, "mixed": 0.5, "partly": 0.5, "far": 1.0})
    assert results.planning[results.planning.horizon_steps.isna()].learner.tolist() == ["mine", "far"]
    said = [note for note in results.notes if "among the planning horizons" in note]
    assert said == mixed_horizons(given)
    assert said == [
        "mixed: its meta-seeds planned for 10 and 20 inner steps, so that it is not among the planning horizons",
        "partly: its meta-seeds planned for 10 inner steps or an unknown number, so that it is not among the planning horizons",
    ]


def test_rows_by_the_horizon_of_the_tasks():
    """Four tasks of 40 steps and two of 400, on which what was trained on short runs is worse."""
    given = [Candidate("short", SGD, {}, card(40)), Candidate("long", SGD, {}, card(400))]
    horizons = {name: 400 if name in "ef" else 40 for name in "abcdef"}
    ends = {"short": {40: 1.0, 400: 0.2}, "long": {40: 0.8, 400: 0.8}}
    runs = [
        {"learner": one.name, "kind": "learner", "trials": 1, "meta_seed": 0, "task": task, "seed": seed, "score": ends[one.name][steps]}
        for one in given
        for task, steps in horizons.items()
        for seed in range(3)
    ]
    found = planning_table(Board.of(pd.DataFrame(runs)), given, horizons)
    told = found[["learner", "horizon_steps", "tasks", "score"]].replace({np.nan: None})
    assert list(told.itertuples(index=False, name=None))[1:3] == [("short", 40.0, 4, 1.0), ("short", 400.0, 2, pytest.approx(0.2))]
    assert list(told.itertuples(index=False, name=None))[3:] == [
        ("long", None, 6, pytest.approx(0.8)),
        ("long", 40.0, 4, pytest.approx(0.8)),
        ("long", 400.0, 2, pytest.approx(0.8)),
    ]
    assert (found.tasks[0], found.planning_steps[0]) == (6, 40)


def test_a_learner_that_ran_nowhere_has_no_row():
    given = [Candidate("here", SGD, {}, card(40)), Candidate("gone", SGD, {}, card(400), kind="in_context")]
    world = World(tasks=tuple("ab"), learners={("here", 0): scoring(0.5), ("gone", 0): None}, kinds={"gone": "in_context"})
    assert world.run(candidates=given).planning.empty
