"""Contrasts, tunability, notes and the text of the headline, each on its own."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metaopt import baselines
from metaopt.baselines import Tuned
from metaopt.evaluation.statistics.improvement import holm
from metaopt.evaluation.tables.comparisons import contrast_table
from metaopt.evaluation.tables.lines import Board, Line
from metaopt.evaluation.tables.notes import edges_of_search, failure_reasons, smallest_p
from metaopt.evaluation.tables.results import make_table
from metaopt.evaluation.tables.tunability_table import tunability_table
from metaopt.evaluation.tables.yardsticks import make_yardstick, task_target
from tests.evaluation.synthetic import BEST, CAP, World, diverging, ending

MINE, OTHER, BASE = Line("mine", "learner", 1), Line("other", "learner", 1), Line("sgd", "baseline", 15)


def board(losses, seeds=5, tasks=3):
    """Lines -> loss of every run: a number, or one for each seed."""
    rows = [
        {**line.columns, "meta_seed": 0, "task": f"t{j}", "seed": k, "final_loss": loss, "score": 1.0 - loss}
        for line, every in losses.items()
        for j in range(tasks)
        for k, loss in enumerate(np.broadcast_to(every, seeds))
    ]
    return Board.of(pd.DataFrame(rows))


def test_contrasts_are_paired_by_seed_and_corrected_as_a_family():
    """Seeds differ far more than learners do: the paired difference has no width, although both vary."""
    noise = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    made = board({MINE: noise, OTHER: noise + 0.9, BASE: noise + 0.05})
    table = contrast_table(made, [MINE, OTHER], {"sgd K=15": BASE, "mine": MINE})
    assert table.learner.tolist() == ["mine", "mine", "other", "other"]
    first = table.iloc[0]
    assert (first.difference, first.difference_low, first.difference_high) == pytest.approx((0.05,) * 3)
    assert first.improvement == pytest.approx(0.6)
    assert table.p_value.tolist()[2:] == pytest.approx([1e-4] * 2), "every run of one side below every run of the other"
    assert table.p_holm.tolist() == list(holm(dict(enumerate(table.p_value))).values())
    assert table.p_holm[2] == pytest.approx(4e-4)


def test_contrasts_of_nobody_are_an_empty_table():
    assert contrast_table(board({BASE: 0.5}), [], {"sgd K=15": BASE}).empty


@pytest.mark.parametrize(
    ("seeds", "tasks", "contrasts", "said"),
    [(5, 1, 6, False), (5, 1, 7, True), (3, 1, 1, True), (3, 2, 10, False), (1, 2, 1, True), (1, 8, 6, False), (5, 8, 100, False)],
)
def test_a_family_that_no_p_value_can_pass_is_named(seeds, tasks, contrasts, said):
    found = smallest_p(board({MINE: 0.5}, seeds, tasks), [MINE], contrasts)
    assert bool(found) == said
    assert all("the smallest p-value that so few runs can give is" in note for note in found)


def tuned(name, finals, at=9):
    one = baselines.get(name)
    trials = one.trials(15)
    return Tuned(one, {1: trials[0], 5: trials[4], 15: trials[at]}, min(finals), tuple(finals))


def headline(**scores):
    rows = [("baseline", name, trials, score) for name, found in scores.items() for trials, score in found.items()]
    return pd.DataFrame([*rows, ("learner", "sgd", 1, 9.0)], columns=["kind", "learner", "trials", "score"])


def test_tunability_is_the_expected_best_of_so_many_trials():
    """Of losses spread evenly over [0, 1]: the first fifteen trials decide the budgets of a report, all hundred the last row."""
    grid = (*((np.arange(15) + 0.5) / 15), *((np.arange(85) + 0.5) / 85))
    made = {"b": [tuned("sgd", grid), tuned("adamw", (0.5,) * 15)], "a": [tuned("sgd", grid), tuned("adamw", (0.3,) * 15)]}
    table = tunability_table(made, headline(sgd={1: 0.1, 5: 0.5, 15: 0.9}, adamw={1: 0.2, 5: 0.6, 15: 1.0}))
    assert table.baseline.tolist() == ["sgd"] * 4 + ["adamw"] * 3
    assert table.trials.tolist() == [1, 5, 15, 100, 1, 5, 15]
    of_fifteen = [(0.5 + sum((i / 15) ** k for i in range(1, 15))) / 15 for k in (1, 5, 15)]  # losses above i / 15: all k draws among them
    assert table.expected_loss[:3].tolist() == pytest.approx(of_fifteen)
    assert table.expected_loss[3] == pytest.approx(1 / 101, abs=0.005), "1 / (K + 1) of uniform losses"
    assert table.expected_loss[4:].tolist() == pytest.approx([0.4] * 3)
    assert table.score[:3].tolist() == [0.1, 0.5, 0.9]
    assert np.isnan(table.score[3])


def test_one_hundred_trials_are_shown_only_where_every_task_has_them():
    made = {"a": [tuned("sgd", (0.5,) * 100)], "b": [tuned("sgd", (0.5,) * 15)]}
    assert tunability_table(made, headline(sgd={1: 0.1, 5: 0.5, 15: 0.9})).trials.tolist() == [1, 5, 15]


def test_a_best_rate_at_an_end_of_the_search_is_named():
    rates = [trial.rate for trial in baselines.get("sgd").trials(15)]
    made = {task: [tuned("sgd", (0.5,), int(at))] for task, at in (("b", np.argmax(rates)), ("a", np.argmin(rates)), ("c", 9))}
    assert edges_of_search(made) == ["best rate at an end of those tried (a wider range might do better): sgd on a, sgd on b"]
    assert edges_of_search({"c": made["c"]}) == []


def test_long_lists_of_failures_are_cut():
    rows = [{**BASE.columns, "task": f"t{i}", "reason": "diverged", "runs": 5} for i in range(20)]
    (note,) = failure_reasons(make_table("failures", rows))
    assert note.startswith("failures of sgd K=15: t0 (diverged), ")
    assert note.endswith("t5 (diverged) and 14 more")
    assert failure_reasons(make_table("failures", [])) == []


def target_of(*runs, learners=()):
    """The target that baselines with these runs give a task."""
    world = World(tasks=("a",))
    (task,), names = world.scored(), ("adamw", "sgd", "nadam")
    every = [tuned(name, (0.5,)) for name in names[: len(runs)]]
    curves = {("a", one.baseline.name, one.trials[15]): made for one, made in zip(every, runs, strict=True)}
    return task_target(task, every, curves, learners)


def test_the_target_is_the_best_median_and_a_failed_run_reaches_nothing():
    assert target_of(ending(0.6), ending(BEST)) == (pytest.approx(BEST), "sgd")
    assert target_of(diverging(), ending(BEST)) == (pytest.approx(BEST), "sgd"), "although it was at 0.1 before it diverged"
    assert target_of(diverging()) == (pytest.approx(np.nan, nan_ok=True), None)


def test_a_learner_that_starts_at_the_target_takes_it_away():
    early = World(learners={}).measured().references["a"].runs[160]
    assert early.heldout[0].min() == 1.0
    assert np.isnan(target_of(ending(1.0), learners=[early])[0])
    assert target_of(ending(0.9), learners=[early])[1] == "adamw"


def test_the_unit_of_a_score_is_the_median_fall_of_the_reference():
    world = World(tasks=("a",))
    (task,), reference = world.scored(), world.measured().references["a"]
    stick, odd = make_yardstick(task, "a", None, reference, None, 0.5)
    assert stick.scale == pytest.approx(1.0 - BEST)
    assert odd is None
    assert len(stick.references) == 5


def test_one_seed_on_which_the_reference_diverges_does_not_change_the_unit():
    world = World(tasks=("a",))
    (task,), reference = world.scored(), world.measured().references["a"]
    runs = reference.runs[task.spec.horizon]
    failed = replace(runs, heldout=np.where(np.arange(5) == 2, CAP, runs.heldout), diverged=np.arange(5) == 2)
    spoiled = replace(reference, runs={**reference.runs, task.spec.horizon: failed})
    stick, odd = make_yardstick(task, "a", None, spoiled, None, 0.5)
    assert stick.scale == pytest.approx(1.0 - BEST, abs=0.02)
    assert odd is None
