"""Many suites: what is kept, what fails, and what is bad input. Nothing is evaluated here; `Runs` stands in for it."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from metaopt.errors import ConfigError, TaskError, WorkerLostError
from metaopt.evaluation import sweep
from metaopt.evaluation.sweep import chosen_suites, evaluate_suites

from .saved_reports import content, save

FILE = Path(__file__).parents[3] / "scripts" / "evaluate_meta_generalization.py"
LEARNERS = ["adamw", "sgd@0.1"]


class Runs:
    """Stands for `metaopt.evaluate`: writes a report at once, or raises what it was told to."""

    def __init__(self, failing=(), error=None, given_up=0):
        self.calls, self.failing, self.error, self.given_up = [], failing, error, given_up

    def __call__(self, learners, suite, out, **options):
        self.calls.append((suite, options))
        if Path(suite).stem in self.failing:
            raise self.error or WorkerLostError("a baseline\ncould not be computed")
        save(Path(out).parent, content(Path(out).name))
        options["progress"]("learners", 1, 2) if options["progress"] else None
        return SimpleNamespace(quarantined=self.given_up)

    @property
    def suites(self):
        return [Path(suite).stem for suite, _ in self.calls]


@pytest.fixture
def suites(tmp_path, small_suite, monkeypatch):
    """Three suites that are there, of which `b` cannot be loaded any more."""
    paths = []
    for name in "abc":
        path = tmp_path / f"{name}.yaml"
        path.write_text(Path(small_suite).read_text())
        paths.append(str(path))
    return paths


def test_every_suite_has_its_report_and_there_is_one_overview(suites, tmp_path):
    run, out = Runs(), tmp_path / "out"
    done = evaluate_suites(LEARNERS, suites, out, run, workers=3, seeds=2)
    assert run.suites == done.finished == ["a", "b", "c"]
    assert (done.kept, done.failures, done.quarantined) == ([], {}, 0)
    assert done.overview.tables["headline"].suite.unique().tolist() == ["a", "b", "c"]
    assert all((out / name / "report.json").is_file() for name in "abc")
    assert (out / "overview.html").is_file()
    suite, options = run.calls[0]
    assert suite == suites[0]
    assert (options["workers"], options["seeds"], options["baselines"], options["address"]) == (3, 2, None, None)


def test_what_is_finished_is_kept_byte_for_byte(suites, tmp_path):
    out = tmp_path / "out"
    evaluate_suites(LEARNERS, suites[:2], out, Runs())
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    run = Runs()
    done = evaluate_suites(LEARNERS, suites, out, run)
    assert (done.kept, done.finished, run.suites) == (["a", "b"], ["c"], ["c"])
    assert all(path.read_bytes() == content for path, content in before.items() if path.parent.name in "ab")
    again = Runs()
    evaluate_suites(LEARNERS, suites[:2], out, again)
    assert again.calls == []
    assert {path: path.read_bytes() for path in before if "overview" in path.name} == {
        path: content for path, content in before.items() if "overview" in path.name
    }


@pytest.mark.parametrize(
    "change",
    [{"learners": ["adamw"]}, {"learners": ["adamw", "sgd@0.2"]}, {"seeds": 3}, {"baselines": ["sgd"]}],
)
def test_other_inputs_are_evaluated_again(suites, tmp_path, change):
    first = {"learners": LEARNERS, "suites": suites[:1], "out": tmp_path / "out"}
    evaluate_suites(**first, run=Runs())
    run = Runs()
    evaluate_suites(**(first | change), run=run)
    assert run.suites == ["a"]


def test_a_changed_suite_or_code_is_evaluated_again(suites, tmp_path, monkeypatch):
    evaluate_suites(LEARNERS, suites[:1], tmp_path / "out", Runs())
    monkeypatch.setattr(sweep, "_report_code", lambda: "changed")
    run = Runs()
    evaluate_suites(LEARNERS, suites[:1], tmp_path / "out", run)
    assert run.suites == ["a"]
    text = Path(suites[0]).read_text().splitlines()
    Path(suites[0]).write_text("\n".join(text[:-1]) + "\n")
    run = Runs()
    evaluate_suites(LEARNERS, suites[:1], tmp_path / "out", run)
    assert run.suites == ["a"]


def test_a_learner_whose_code_is_not_known_is_never_kept(suites, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "fingerprint", lambda learner, theta: None)
    for _ in range(2):
        run = Runs()
        evaluate_suites(LEARNERS, suites[:1], tmp_path / "out", run)
        assert run.suites == ["a"]


def test_a_report_that_was_removed_or_half_replaced_is_made_again(suites, tmp_path):
    out = tmp_path / "out"
    evaluate_suites(LEARNERS, suites[:2], out, Runs())
    (out / "a" / "report.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        evaluate_suites(["nadam"], suites[1:2], out, Runs(failing="b", error=KeyboardInterrupt()))
    run = Runs()
    done = evaluate_suites(LEARNERS, suites[:2], out, run)
    assert run.suites == ["a", "b"], "the report of b may be the other learner's"
    assert done.kept == []


def test_an_unreadable_record_costs_only_time(suites, tmp_path):
    evaluate_suites(LEARNERS, suites[:1], tmp_path / "out", Runs())
    (tmp_path / "out" / "inputs.json").write_text("[")
    run = Runs()
    evaluate_suites(LEARNERS, suites[:1], tmp_path / "out", run)
    assert run.suites == ["a"]
    assert "a" in json.loads((tmp_path / "out" / "inputs.json").read_text())


def test_a_suite_that_fails_does_not_stop_the_others(suites, tmp_path):
    done = evaluate_suites(LEARNERS, suites, tmp_path / "out", Runs(failing="b"))
    assert done.finished == ["a", "c"]
    assert done.failures == {"b": "WorkerLostError: a baseline could not be computed"}
    assert "b failed and is missing here: WorkerLostError" in done.overview.text()
    assert evaluate_suites(LEARNERS, suites, tmp_path / "out", Runs()).finished == ["b"]


def test_errors_that_nobody_expected_are_counted_too(suites, tmp_path):
    done = evaluate_suites(LEARNERS, suites, tmp_path / "out", Runs(failing="ab", error=ZeroDivisionError("by zero")))
    assert done.failures == dict.fromkeys("ab", "ZeroDivisionError: by zero")
    assert done.finished == ["c"]


def test_no_report_no_overview(suites, tmp_path):
    done = evaluate_suites(LEARNERS, suites[:1], tmp_path / "out", Runs(failing="a"))
    assert done.overview is None
    assert list(done.failures) == ["a"]


def test_jobs_that_were_given_up_are_tried_again(suites, tmp_path):
    assert evaluate_suites(LEARNERS, suites[:1], tmp_path / "out", Runs(given_up=2)).quarantined == 2
    run = Runs()
    assert evaluate_suites(LEARNERS, suites[:1], tmp_path / "out", run).quarantined == 0
    assert run.suites == ["a"]


def test_input_that_every_suite_refuses_is_bad_input(suites, tmp_path):
    with pytest.raises(ConfigError, match="workers=2 needs ray"):
        evaluate_suites(LEARNERS, suites, tmp_path / "out", Runs(failing="abc", error=ConfigError("workers=2 needs ray")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learners": ["adamww"]}, "adamww"),
        ({"suites": ["quickk"]}, "suite 'quickk' is unknown; did you mean 'quick'"),
        ({"baselines": ["sgdd"]}, "baseline 'sgdd' is unknown"),
        ({"device": "tpu"}, "tpu"),
        ({"suites": []}, "suites must name at least one"),
    ],
)
def test_bad_input_is_found_before_anything_runs(suites, tmp_path, change, message):
    run = Runs()
    with pytest.raises(Exception, match=message):
        evaluate_suites(**({"learners": LEARNERS, "suites": suites, "out": tmp_path / "out", "run": run} | change))
    assert run.calls == []
    assert not (tmp_path / "out").exists()


def test_progress_says_which_suite(suites, tmp_path):
    seen = []
    evaluate_suites(LEARNERS, suites[:2], tmp_path / "out", Runs(), progress=lambda *told: seen.append(told[:3]))
    assert seen == [("a: learners", 1, 2), ("b: learners", 1, 2)]


def test_suites_by_group_name_and_path(small_suite, monkeypatch):
    known = {name: SimpleNamespace(name=name, axis=axis) for name, axis in (("depth", "d"), ("quick", None), ("width", "w"))}
    monkeypatch.setattr(sweep, "suite_names", lambda: tuple(known))
    monkeypatch.setattr(sweep, "load_suite", lambda name: known.get(name) or SimpleNamespace(name="small", axis=None))
    monkeypatch.setattr(sweep, "Suite", SimpleNamespace)
    assert list(chosen_suites(["all"])) == ["depth", "quick", "width"]
    assert list(chosen_suites(["axes"])) == ["depth", "width"]
    assert list(chosen_suites(["width", small_suite, "all"])) == ["width", "small", "depth", "quick"]
    with pytest.raises(ConfigError, match="are both called 'quick'"):
        chosen_suites(["quick", "elsewhere/quick.yaml"])


def test_a_suite_whose_tasks_changed_is_a_failure_of_that_suite(suites, tmp_path, monkeypatch):
    load = sweep.load_suite

    def changed(name):
        if name.endswith("b.yaml"):
            raise TaskError("its family changed")
        return load(name)

    monkeypatch.setattr(sweep, "load_suite", changed)
    done = evaluate_suites(LEARNERS, suites, tmp_path / "out", Runs())
    assert done.failures == {"b": "TaskError: its family changed"}
    assert done.finished == ["a", "c"]


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("evaluate_meta_generalization", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_says_what_there_is(script, suites, tmp_path, monkeypatch, capsys):
    run = Runs(failing="b")
    monkeypatch.setattr(script.metaopt, "evaluate", run)
    arguments = [*LEARNERS, "--suites", ",".join(suites), "--out", str(tmp_path / "out"), "--seeds", "2", "--baselines", "sgd,adamw"]
    assert script.main(arguments) == 3
    said = capsys.readouterr()
    assert "2 suites evaluated, 0 kept, 1 failed" in said.out
    assert f"overview: {tmp_path / 'out' / 'overview.html'}" in said.out
    assert "failed: b: WorkerLostError: a baseline could not be computed" in said.err
    assert run.calls[0][1]["baselines"] == "sgd,adamw"
    monkeypatch.setattr(script.metaopt, "evaluate", Runs())
    assert script.main(arguments) == 0
    assert "1 suites evaluated, 2 kept, 0 failed" in capsys.readouterr().out


def test_the_command_counts_jobs_that_were_given_up(script, suites, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script.metaopt, "evaluate", Runs(given_up=1))
    assert script.main(["adamw", "--suites", suites[0], "--out", str(tmp_path / "out")]) == 3
    assert "1 jobs were given up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adamw", "--suites", "quickk"], "suite 'quickk' is unknown"),
        (["adamww"], "adamww"),
        (["adamw", "--baselines", "sgdd"], "baseline 'sgdd' is unknown"),
    ],
)
def test_the_command_refuses_in_one_line(script, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(script.metaopt, "evaluate", Runs())
    assert script.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("evaluate_meta_generalization: ")
    assert message in said[0]


def test_the_command_without_learners_is_bad_input(script, capsys):
    with pytest.raises(SystemExit) as caught:
        script.main([])
    assert caught.value.code == 2
    assert "LEARNER" in capsys.readouterr().err


def test_the_script_is_short():
    assert len(FILE.read_text().splitlines()) < 80
    assert "evaluate_meta_generalization" not in sys.modules
