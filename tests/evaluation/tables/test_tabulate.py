"""From curves to tables, end to end: learners whose every number is known in advance."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from metaopt.evaluation.tables.results import COLUMNS, records
from tests.evaluation.synthetic import BEST, CAP, World, diverging, ending, line, still

KNOWN = {("twin", 0): ending(BEST), ("still", 0): still(), ("bad", 0): diverging(), ("gone", 0): "RuntimeError: out of order"}


@pytest.fixture(scope="module")
def results():
    return World(learners=KNOWN).run()


def test_the_reference_under_another_name_is_as_good_as_the_reference(results):
    twin, best = line(results.summary, "twin"), line(results.summary, "adamw", 15)
    assert twin.score == pytest.approx(1.0, abs=1e-12)
    assert (twin.speed_up, twin.speed_up_low, twin.speed_up_high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-9)
    assert (twin.improvement, twin.improvement_low, twin.improvement_high) == (0.5, 0.5, 0.5)
    assert twin.algoperf == best.algoperf == twin.algoperf_fixed == twin.geometric_speed_up == 1.0
    numbers = [name for name in results.summary if name not in ("learner", "kind", "trials")]
    assert twin[numbers].equals(best[numbers]), "equal runs have equal intervals"
    for against in ("reference", "adamw K=15"):
        contrast = line_of_contrast(results, "twin", against)
        assert (contrast.difference, contrast.difference_low, contrast.difference_high) == (0.0, 0.0, 0.0)
        assert (contrast.improvement, contrast.p_value, contrast.p_holm) == (0.5, 1.0, 1.0)


def test_a_learner_that_does_nothing_scores_exactly_zero(results):
    row = line(results.summary, "still")
    assert (row.score, row.score_low, row.score_high) == (0.0, 0.0, 0.0)
    assert (row.speed_up, row.speed_up_high, row.failures, row.final_loss) == (0.0, 0.0, 0, 1.0)
    assert (row.optimality_gap, row.algoperf, row.algoperf_fixed) == (1.0, 0.0, 0.0)
    assert results.tasks[results.tasks.learner == "still"].steps_to_target.isna().all()


@pytest.mark.parametrize(("name", "reason"), [("bad", "diverged"), ("gone", "RuntimeError: out of order")])
def test_a_learner_that_fails_is_the_worst_everywhere(results, name, reason):
    row = line(results.summary, name)
    worst = [row[f"{column}{end}"] for column in ("score", "speed_up", "improvement") for end in ("", "_low", "_high")]
    assert worst == [0.0] * 9
    assert (row.final_loss, row.anytime, row.train_loss, row.failures, row.failure_rate) == (CAP, CAP, CAP, row.runs, 1.0)
    assert (row.algoperf, row.algoperf_fixed) == (0.0, 0.0)
    assert results.summary.final_loss.max() == row.final_loss
    profile = results.score_profile[results.score_profile.learner == name]
    assert (profile.value == 0.0).all()
    profile = results.time_profile[results.time_profile.learner == name]
    assert (profile.value == 0.0).all(), "below the target for most of a run that diverges later"
    failures = results.failures[results.failures.learner == name]
    assert failures.runs.tolist() == [5] * 12
    assert set(failures.reason) == {reason}
    assert any(note.startswith(f"failures of {name}: a ({reason}), ") and note.endswith(" and 6 more") for note in results.notes)
    assert line_of_contrast(results, name, "sgd K=15").improvement == 0.0


def test_a_failure_loses_against_a_learner_that_does_nothing():
    """Both score 0, but the odds are about the final loss, of which a failed run has the worst."""
    world = World(learners={("bad", 0): diverging()})
    world.ends = {("sgd", 1): 1.0, ("sgd", 5): 1.0, ("sgd", 15): 1.0}
    found = world.run()
    assert line_of_contrast(found, "bad", "sgd K=15").improvement == pytest.approx(0.2), "two seeds of five fail there as well"


def test_every_table_has_its_columns_and_is_strict_json(results):
    for name, columns in COLUMNS.items():
        table = getattr(results, name)
        assert table.columns.tolist() == list(columns), name
        json.dumps(records(table), allow_nan=False)
    assert len(results.scores) == 12 * 5 * (4 + 6)
    assert results.summary.learner.tolist() == ["twin", "still", "bad", "gone", *["adamw"] * 3, *["sgd"] * 3]
    assert results.levels.empty
    assert results.branches.empty
    assert results.planning.empty
    assert results.gaps.empty


def test_baselines_that_are_tuned_more_are_better(results):
    scores = results.summary[results.summary.kind == "baseline"].set_index(["learner", "trials"]).score
    assert scores.to_dict() == pytest.approx(
        {("adamw", 1): 0.5, ("adamw", 5): 5 / 6, ("adamw", 15): 1.0, ("sgd", 1): 1 / 3, ("sgd", 5): 0.5, ("sgd", 15): 2 / 3}
    )


def test_no_order_of_tasks_or_learners_changes_a_number(results):
    world = World(learners=dict(reversed(KNOWN.items())))
    world.tasks = world.tasks[::-1]
    other = world.run(scored=world.scored()[::-1])
    for name in ("scores", "targets", "tunability"):
        assert getattr(other, name).equals(getattr(results, name)), name
    for name in ("summary", "tasks", "contrasts", "score_profile", "time_profile", "failures"):
        keys = [key for key in ("learner", "kind", "trials", "task", "tau", "against", "reason") if key in COLUMNS[name]]
        one, two = (getattr(found, name).sort_values(keys, ignore_index=True) for found in (results, other))
        assert one.equals(two), name
    assert list(other.curves) == list(results.curves)
    assert sorted(other.notes) == sorted(results.notes)


def test_several_meta_seeds_are_one_line():
    """Two meta-trainings, one that ends at 0.2 and one at 0.6: fifty-fifty, with an interval from one to the other."""
    world = World(learners={("mine", 0): ending(0.2), ("mine", 1): ending(0.6), ("other", 0): ending(0.2)})
    results = world.run()
    row = line(results.summary, "mine")
    assert (row.meta_seeds, row.tasks, row.runs) == (2, 12, 120)
    assert row.mean_score == pytest.approx(1.0)
    assert (row.improvement, row.improvement_low, row.improvement_high) == (0.5, 0.0, 1.0)
    assert row.score_low < 0.7 < 1.3 < row.score_high
    assert line_of_contrast(results, "mine", "reference").difference == pytest.approx(0.0, abs=1e-9)
    assert results.curves["a"].learners["mine"].heldout.shape == (41, 10), "all meta-seeds are drawn"
    assert results.scores[results.scores.learner == "mine"].groupby("meta_seed").size().to_dict() == {0: 60, 1: 60}
    assert [warning.split(";")[0] for warning in results.warnings] == [
        "Under-covered (mine): 2 meta-seeds and 12 tasks",
        "Under-covered (other): 1 meta-seed and 12 tasks",
    ]


def test_a_run_that_failed_counts_among_those_of_other_meta_seeds():
    results = World(learners={("mine", 0): ending(0.2), ("mine", 1): lambda task: "lost" if task == "a" else ending(0.2)}).run()
    row = line(results.summary, "mine")
    assert (row.runs, row.failures) == (120, 5)
    assert line(results.tasks, "mine", task="a").failures == 5
    assert row.mean_score == pytest.approx(4 / 3 * 115 / 120)


def test_a_result_that_is_nowhere_is_a_failure_and_not_dropped():
    results = World(learners={("mine", 0): lambda task: None if task == "b" else ending(0.2)}).run()
    row = line(results.summary, "mine")
    assert (row.tasks, row.failures) == (12, 5)
    assert results.failures.reason.tolist() == ["no result"]


def test_a_learner_of_another_kind_is_compared_on_the_tasks_that_it_can_run_on():
    world = World(learners={("context", 0): ending(0.5), ("mine", 0): ending(0.2)}, kinds={"context": "in_context"})
    world.can_run = dict.fromkeys("abc", ("update_rule", "in_context"))
    # Where it runs, AdamW ends at 0.6 and SGD, the reference there, at 0.5.
    world.ends |= {("adamw", 15): lambda task: 0.6 if task in "abc" else BEST, ("sgd", 15): lambda task: 0.5 if task in "abc" else 0.8}
    results = world.run()
    row = line(results.summary, "context")
    assert (row.tasks, row.runs, row.failures) == (3, 15, 0)
    assert (row.score, row.improvement) == (pytest.approx(1.0), 0.5)
    assert row.algoperf_fixed == 1.0
    assert row.algoperf == pytest.approx((4 - 40 / 25) / 3), "the other learner needs 25 steps for what this one does in 40"
    assert line_of_contrast(results, "context", "adamw K=15").improvement == 1.0
    assert line_of_contrast(results, "context", "sgd K=15").difference == pytest.approx(0.0, abs=1e-9)
    note = "context: on 3 of 12 tasks, those that suit its kind (in_context); comparisons with it use the same tasks"
    assert note in results.notes
    assert results.targets.set_index("task").kinds["a"] == "update_rule, in_context"
    assert sorted(results.tasks[results.tasks.learner == "context"].task) == ["a", "b", "c"]


def test_a_learner_that_can_run_nowhere_has_no_line_but_a_note():
    results = World(learners={("mine", 0): ending(0.2), ("policy", 0): ending(0.2)}, kinds={"policy": "policy"}).run()
    assert "policy" not in set(results.summary.learner)
    assert "policy: no task of this suite suits a learner of kind policy, so that it has no line" in results.notes


def test_a_learner_named_like_a_baseline_stays_apart():
    results = World(learners={("adamw", 0): ending(0.2)}).run()
    assert len(results.summary[results.summary.learner == "adamw"]) == 4
    assert line(results.summary, "adamw", 1, kind="learner").score == pytest.approx(4 / 3)
    assert line(results.summary, "adamw", 1, kind="baseline").score == pytest.approx(0.5)


def test_censored_speed_ups_are_flagged_and_counted():
    results = World(learners={("fast", 0): ending(0.05)}).run()
    row = line(results.summary, "fast")
    assert (row.speed_up, row.censored) == (4.0, 60)


def test_speed_up_over_constant_rates_needs_envelopes_and_says_where_they_end():
    archive = (np.linspace(0.0, 160.0, 41), np.linspace(1.0, 0.4, 41))
    results = World(learners={("mine", 0): ending(0.2)}, envelope=archive).run()
    row = line(results.summary, "mine")
    assert (row.constant_rate_speed_up, row.saturated) == (pytest.approx(3.56, abs=0.02), 0), "its smoothed loss is 0.466"
    results = World(learners={("mine", 0): ending(0.01), ("still", 0): still()}, envelope=(archive[0], archive[1] + 0.3)).run()
    assert (line(results.summary, "mine").constant_rate_speed_up, line(results.summary, "mine").saturated) == (4.0, 60)
    assert line(results.summary, "still").constant_rate_speed_up == 0.0
    assert any("their runs end too early: mine 60 of 60 runs" in note for note in results.notes)
    without = World(learners={("mine", 0): ending(0.2)}).run()
    assert np.isnan(line(without.summary, "mine").constant_rate_speed_up)


def test_a_reference_that_does_not_learn_gives_no_scale():
    """Scores are then in units of the first loss, and a note says so; nothing is left out."""
    world = World(learners={("mine", 0): ending(0.2)})
    world.ends |= {(name, k): lambda task: 1.2 if task == "a" else 0.5 for name, k in world.ends}
    results = world.run()
    scores = results.scores[(results.scores.learner == "mine") & (results.scores.task == "a")].score
    assert scores.mean() == pytest.approx(0.8)
    assert any("does not end below its first loss" in note and note.endswith(": a (from 1 to 10)") for note in results.notes)
    assert np.isnan(results.targets.set_index("task").target["a"])
    assert line(results.summary, "mine").tasks == 12


def test_a_task_that_starts_at_its_target_has_none_but_stays_in_all_else():
    """All that tuned baselines reach on task a is where they begin."""
    world = World(learners={("mine", 0): ending(0.2)})
    world.ends |= {(name, k): lambda task: 1.0 if task == "a" else 0.5 for name, k in world.ends}
    results = world.run()
    assert np.isnan(results.targets.set_index("task").target["a"])
    assert any("no target" in note and note.endswith(": a") for note in results.notes)
    row = line(results.summary, "mine")
    assert (row.tasks, row.algoperf) == (12, 1.0)
    assert np.isnan(line(results.tasks, "mine", task="a").steps_to_target)


def test_settings_and_references_are_told_as_text(results):
    baselines = results.scores[results.scores.kind == "baseline"]
    assert baselines[baselines.trials == 1].groupby("learner").settings.unique().map(list).to_dict() == {"adamw": ["0.001"], "sgd": ["0.1"]}
    assert results.scores[results.scores.kind == "learner"].settings.isna().all()
    assert results.curves["a"].reference == results.targets.reference[0]
    assert results.curves["a"].reference.startswith("adamw@beta1=")
    assert list(results.curves["a"].baselines) == ["adamw K=15", "sgd K=15"]
    assert list(results.curves["a"].learners) == ["twin", "still", "bad"], "what gave no curves is not drawn"
    assert "references, tuned on other seeds: adamw on 12 of 12 tasks" in results.notes
    assert set(results.targets.target_by) == {"adamw"}


def test_contamination_is_told_by_hash_and_by_template():
    world = World(learners={("mine", 0): ending(0.2), ("clean", 0): ending(0.2), ("none", 0): ending(0.2)})
    training = {"task_hashes": [world.spec("a").hash, "f" * 16], "support": {"template": ["quadratic/6x6-minimum"], "horizon": [10, 50]}}
    world.cards = {"mine": {"training": training}, "clean": {"training": {"task_hashes": [], "support": {}}}}
    notes = world.run().notes
    assert "mine: 1 of the suite's tasks were in its meta-training; so were templates of it: quadratic/6x6-minimum" in notes
    assert "clean: no task of the suite is in its meta-training log" in notes
    assert not any(note.startswith("none:") for note in notes)


def test_the_frozen_baseline_is_adamw_or_the_first():
    world = World(learners={("mine", 0): ending(0.2)})
    world.ends = dict(reversed(world.ends.items()))
    assert [baseline.name for baseline in world.chosen()] == ["sgd", "adamw"]
    assert any("compared with those of adamw K=15" in note for note in world.run().notes)
    world.ends = {("sgd", 1): 0.8, ("sgd", 5): 0.7, ("sgd", 15): 0.6, ("nadam", 1): 0.8, ("nadam", 5): 0.7, ("nadam", 15): 0.4}
    results = world.run()
    assert any("compared with those of sgd K=15" in note for note in results.notes)
    assert np.isnan(line(results.summary, "sgd", 5).algoperf), "not in the field"
    assert line(results.summary, "sgd", 15).geometric_speed_up == 1.0


def test_one_seed_is_enough_for_a_report():
    results = World(learners={("mine", 0): ending(0.2, 1)}, seeds=1).run()
    row = line(results.summary, "mine")
    assert row.score_low == row.score == row.score_high
    assert line_of_contrast(results, "mine", "reference").p_value == 2 / 2**12, "twelve tasks, one pair of runs each: a sign test"


def test_equal_arguments_give_equal_results_and_are_left_alone():
    world = World(learners={("mine", 0): ending(0.3), ("mine", 1): ending(0.5)})
    measured = world.measured()
    before = {key: replace(curves, heldout=curves.heldout.copy()) for key, curves in measured.learners.items()}
    one, two = world.run(measured=measured), world.run(measured=measured)
    for name in COLUMNS:
        assert getattr(one, name).equals(getattr(two, name))
    assert one.notes == two.notes
    assert all((measured.learners[key].heldout == curves.heldout).all() for key, curves in before.items())


def test_the_tables_of_a_standard_report_take_seconds():
    """Two learners and four baselines at three budgets on 26 tasks with 5 seeds: about 2 s of one core."""
    world = World(tasks=tuple(f"t{i:02}" for i in range(26)), learners={("mine", 0): ending(0.2), ("other", 0): ending(BEST)})
    world.ends = {(name, k): 0.4 + 0.01 * k for name in ("sgd", "sgd_momentum", "adamw", "nadam") for k in (1, 5, 15)}
    measured, started = world.measured(), time.process_time()
    results = world.run(measured=measured)
    assert time.process_time() - started < 20.0
    assert len(results.summary) == 14


def line_of_contrast(results, learner, against):
    chosen = results.contrasts[(results.contrasts.learner == learner) & (results.contrasts.against == against)]
    assert len(chosen) == 1
    return chosen.iloc[0]
