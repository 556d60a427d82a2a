"""End to end on two small bowls: learners whose score is known in advance."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from metaopt import baselines, tasks
from metaopt.artifacts import Artifact, new_card
from metaopt.errors import ConfigError
from metaopt.evaluation import Candidate, evaluate
from metaopt.learners import GradientLearner, get

BASELINES = ["sgd", "adamw"]


@dataclass(frozen=True)
class Still(GradientLearner):
    """Never moves."""

    def advance(self, theta, task, carry, batch):
        _, record = super().advance(theta, task, carry, batch)
        return carry, record


@dataclass(frozen=True)
class Broken(GradientLearner):
    """Raises on every step."""

    def advance(self, theta, task, carry, batch):
        raise RuntimeError("out of order")


def candidate(name, learner, rate):
    return Candidate(name, learner, {"lr": torch.tensor(rate)})


SGD = get("sgd", schedule=baselines.SCHEDULE)
STILL = candidate("still", Still(SGD.rule), 0.1)
DIVERGING = candidate("diverging", SGD, 1e6)
ASCENDING = candidate("ascending", SGD, -0.01)
NAMES = ("adamw@0.1", "still", "diverging", "ascending", "celo2_base@start")


@pytest.fixture(scope="module")
def report(tmp_path_factory, small_suite, warm_store):
    learners = ["adamw@0.1", STILL, DIVERGING, ASCENDING, "celo2_base@start"]
    return evaluate(learners, small_suite, BASELINES, out=tmp_path_factory.mktemp("report"), store=warm_store, device="cpu")


@pytest.fixture(autouse=True)
def no_figures(report, monkeypatch):
    """One report with figures is enough: they take longer than the runs, and `test_report` looks at them."""
    monkeypatch.setattr("metaopt.evaluation.report.catalogue", lambda results: {})


def rows_of(report, learner, trials=1):
    rows = report.scores
    return rows[(rows.learner == learner) & (rows.trials == trials)]


def test_there_is_a_row_for_every_run(report):
    assert len(report.scores) == 2 * 5 * (5 + 3 * len(BASELINES))
    assert not report.scores[["final_loss", "speed_up", "anytime"]].isna().any().any()
    assert report.quarantined == 0


def test_a_learner_that_never_moves_keeps_exactly_its_first_loss(report):
    rows = rows_of(report, "still")
    assert (rows.final_loss == rows.first_loss).all()
    assert (rows.speed_up == 0).all()
    assert (rows.score == 0).all()
    assert not rows.failed.any()


def test_a_diverging_learner_fails_everywhere_and_is_the_worst(report):
    rows = rows_of(report, "diverging")
    assert rows.failed.all()
    assert (rows.final_loss == 10.0).all()
    assert (rows.speed_up == 0).all()
    assert set(rows.reason) == {"diverged"}
    summary = report.summary.set_index(["learner", "trials"])
    assert summary.final_loss.idxmax() == ("diverging", 1)
    assert summary.failures["diverging", 1] == 10
    assert summary.improvement["diverging", 1] == 0.0


def test_ending_above_the_first_loss_is_a_failure(report):
    rows = rows_of(report, "ascending")
    assert rows.failed.all()
    assert set(rows.reason) <= {"ends above its first loss", "diverged"}


@dataclass(frozen=True)
class Disguised(GradientLearner):
    """AdamW with the settings that tuning found for each task, by the task's program: the reference under another name."""

    settings: tuple = ()

    def advance(self, theta, task, carry, batch):
        values = next(values for program, values in self.settings if program == task.program)
        return super().advance({name: torch.tensor(value) for name, value in values}, task, carry, batch)


def test_adamw_disguised_as_a_learner_is_the_reference(small_suite, warm_store, tmp_path):
    first = evaluate("adamw", small_suite, ["adamw"], out=tmp_path / "first", store=warm_store)
    adamw = baselines.get("adamw")
    found = {name: adamw.parse(one.reference.split("@")[1]).values for name, one in first.results.curves.items()}
    settings = tuple((tasks.build(one.spec).program, found[name]) for name, one in first.results.curves.items())
    learner = Disguised(adamw.learner().rule, adamw.learner().schedule, settings=settings)
    # Its card was trained on quadratic tasks as long as one of the two: one task inside, one outside.
    support = {"family": ["quadratic"], "horizon": [10, 35], "init_scale": [0.1, 10.0]}
    card = new_card("disguised", "adamw", training={"support": support, "outer_steps": 1})
    again = evaluate(Candidate("disguised", learner, {}, card), small_suite, ["adamw"], out=tmp_path / "again", store=warm_store)
    [line] = again.summary[again.summary.learner == "disguised"].to_dict("records")
    assert line["speed_up_low"] <= 1.0 <= line["speed_up_high"]
    assert line["speed_up"] == pytest.approx(1.0, abs=0.02)
    assert line["improvement"] == pytest.approx(0.5, abs=0.02)
    assert line["improvement_low"] <= 0.5 <= line["improvement_high"]
    assert line["score_low"] <= 1.0 <= line["score_high"]
    tuned = again.summary[(again.summary.learner == "adamw") & (again.summary.trials == 15)].iloc[0]
    assert line["score"] == pytest.approx(tuned.score, abs=1e-3)
    [gap] = again.gaps.to_dict("records")
    assert (gap["inside_tasks"], gap["outside_tasks"]) == (1, 1)
    assert gap["gap_low"] <= 0.0 <= gap["gap_high"]
    against = again.contrasts.set_index("against").loc["adamw K=15"]
    assert against.difference_low <= 0.0 <= against.difference_high
    assert against.p_holm > 0.5


def test_learners_and_baselines_share_seeds_and_tuning_does_not(report):
    scores = report.scores
    for _, group in scores.groupby("task"):
        assert group.groupby("seed").inner_seed.nunique().eq(1).all()
        assert group.groupby("seed").first_loss.nunique().eq(1).all(), "the same start for everyone"


def test_more_trials_never_hurt_on_average(report):
    summary = report.summary.set_index(["learner", "trials"]).final_loss
    for name in BASELINES:
        assert summary[name, 15] <= summary[name, 1] + 1e-3


def test_same_bytes_again_and_for_another_order_of_tasks(report, reversed_suite, warm_store, tmp_path):
    learners = ["adamw@0.1", STILL, DIVERGING, ASCENDING, "celo2_base@start"]
    again = evaluate(learners, reversed_suite, BASELINES, out=tmp_path / "again", store=warm_store, device="cpu")
    assert (again.path / "rows.jsonl").read_bytes() == (report.path / "rows.jsonl").read_bytes()
    assert json.loads(again.to_json())["results"] == json.loads(report.to_json())["results"]


def test_fewer_seeds_are_the_first_ones(report, small_suite, warm_store, tmp_path):
    one = evaluate("adamw@0.1", small_suite, BASELINES, seeds=1, out=tmp_path / "one", store=warm_store)
    part, whole = rows_of(one, "sgd", 15), rows_of(report, "sgd", 15)
    assert part.final_loss.tolist() == whole[whole.seed == 0].final_loss.tolist()
    assert len(one.scores) == 2 * (1 + 3 * len(BASELINES))


def test_a_warm_store_leaves_only_the_learners_to_run(report, small_suite, warm_store, tmp_path):
    said = []
    evaluate("sgd", small_suite, BASELINES, out=tmp_path / "w", store=warm_store, progress=lambda *call: said.append(call[:3]))
    assert said == [("learners", 0, 350), ("learners", 200, 350), ("learners", 350, 350), ("step times", 1, 2), ("step times", 2, 2)]


def test_a_broken_learner_is_counted_with_its_reason(small_suite, warm_store, tmp_path):
    broken = candidate("broken", Broken(SGD.rule), 0.1)
    report = evaluate([broken, "sgd"], small_suite, BASELINES, seeds=2, out=tmp_path / "broken", store=warm_store)
    rows = rows_of(report, "broken")
    assert report.quarantined == 2
    assert rows.failed.all()
    assert len(rows) == 4
    assert set(rows.reason) == {"RuntimeError: out of order"}
    assert any("out of order" in note for note in report.results.notes)
    assert any(note.startswith("references, tuned on other seeds: ") for note in report.results.notes)
    assert (report.path / "report.html").is_file()


def test_contamination_is_named(small_suite, warm_store, tmp_path, report):
    seen = list({row["task_hash"] for row in report.scores.to_dict("records")})[:1]
    card = {"training": {"task_hashes": seen}, "rule": {"name": "sgd", "version": 1, "options": {}}}
    spoiled = replace(STILL, name="spoiled", card=card)
    again = evaluate(spoiled, small_suite, BASELINES, seeds=1, out=tmp_path / "c", store=warm_store)
    assert "spoiled: 1 of the suite's tasks were in its meta-training" in again.results.notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0}, "seeds must be an integer >= 1, got 0"),
        ({"seeds": True}, "seeds must be an integer >= 1, got True"),
        ({"baselines": []}, "must name at least one"),
        ({"baselines": "adamw,sgdd"}, "baseline 'sgdd' is unknown"),
        ({"suite": "slow"}, "suite 'slow' is unknown"),
        ({"device": "tpu"}, "device 'tpu' is unknown"),
        ({"workers": -1}, "workers must be >= 0"),
    ],
)
def test_bad_calls_write_nothing(arguments, message, tmp_path, small_suite, warm_store):
    call = {"learners": "sgd", "suite": small_suite, "out": tmp_path / "out", "store": warm_store} | arguments
    with pytest.raises(ConfigError, match=message):
        evaluate(**call)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, small_suite, warm_store):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="exists and holds no report"):
        evaluate("sgd", small_suite, BASELINES, out=tmp_path, store=warm_store)


@pytest.mark.ray
@pytest.mark.slow
def test_two_ray_workers_give_the_same_bytes(ray_session, small_suite, warm_store, tmp_path, monkeypatch):
    learners, reports = ["adamw@0.1", "celo2_base@start"], []
    for n in (0, 2):
        monkeypatch.setenv("METAOPT_CACHE", str(tmp_path / f"cache-{n}"))
        reports.append(evaluate(learners, small_suite, BASELINES, out=tmp_path / str(n), store=warm_store, workers=n))
    rows = [(one.path / "rows.jsonl").read_bytes() for one in reports]
    assert rows[0] == rows[1]
    assert reports[0].to_json() == reports[1].to_json()
    assert np.isfinite(reports[1].summary.final_loss).all()


def test_an_artifact_of_the_start_equals_the_preset(small_suite, warm_store, tmp_path):
    learner = get("learnable_adam")
    step = {"base_lr": 1.0, "default_schedule": {"warmup_frac": 0.05, "final_frac": 0.0}}
    kept = Artifact(new_card("kept", "learnable_adam", options={}, step=step), learner.init_theta(0)).save(tmp_path / "kept")
    both = evaluate([kept, "learnable_adam@start"], small_suite, BASELINES, seeds=2, out=tmp_path / "out", store=warm_store)
    assert rows_of(both, "kept").final_loss.tolist() == rows_of(both, "learnable_adam@start").final_loss.tolist()
    assert any(note.startswith("kept: no task of the suite") for note in both.results.notes)
    assert both.results.provenance["learners"]["kept"]["hashes"] == both.results.provenance["learners"]["learnable_adam@start"]["hashes"]


def test_the_reference_is_the_best_baseline_and_has_even_odds_against_itself(small_suite, warm_store, tmp_path):
    alone = evaluate("sgd", small_suite, ["sgd"], seeds=3, out=tmp_path / "out", store=warm_store)
    best = alone.summary.set_index(["learner", "trials"]).loc[("sgd", 15)]
    assert best.improvement == 0.5
    assert best.speed_up == pytest.approx(1.0, abs=0.1)
    assert {curves.reference.split("@")[0] for curves in alone.results.curves.values()} == {"sgd"}


def test_the_folder_of_an_interrupted_report_is_written_again(small_suite, warm_store, tmp_path):
    (tmp_path / "cut" / "figures").mkdir(parents=True)
    (tmp_path / "cut" / "rows.jsonl").write_text("{}")
    again = evaluate("sgd", small_suite, ["sgd"], seeds=1, out=tmp_path / "cut", store=warm_store)
    assert (again.path / "report.json").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="exists and holds no report"):
        evaluate("sgd", small_suite, ["sgd"], seeds=1, out=tmp_path / "mine", store=warm_store)


def test_what_steps_cost_stands_beside_the_results_and_not_in_them(report):
    timings = json.loads((report.path / "timings.json").read_text())
    timed = {(row["task"], row["line"]) for row in timings["step_seconds"]}
    assert timed == {(task, line) for task in ("moving", "clean") for line in [*NAMES, "reference"]}
    assert all(row["seconds"] > 0 for row in timings["step_seconds"])
    by_learner = {row["learner"]: row for row in timings["wall_clock"]}
    assert set(by_learner) == set(NAMES)
    assert by_learner["still"]["speed_up"] == 0.0
    assert "step_seconds" not in (report.path / "report.json").read_text()


def test_two_meta_trainings_are_one_line(small_suite, warm_store, tmp_path):
    runs = [replace(candidate("mine", SGD, rate), meta_seed=i) for i, rate in enumerate((0.01, 0.1))]
    both = evaluate(runs, small_suite, BASELINES, seeds=2, out=tmp_path / "both", store=warm_store)
    [line] = both.summary[both.summary.kind == "learner"].to_dict("records")
    assert (line["meta_seeds"], line["tasks"], line["runs"]) == (2, 2, 8)
    assert len(both.results.provenance["learners"]["mine"]["hashes"]) == 2


def test_a_learner_that_can_run_nowhere_is_refused(small_suite, warm_store, tmp_path):
    with pytest.raises(ConfigError, match="of kind 'in_context', which can run on no task of suite 'small'"):
        evaluate(replace(STILL, kind="in_context"), small_suite, BASELINES, out=tmp_path / "none", store=warm_store)
    assert not (tmp_path / "none").exists()
