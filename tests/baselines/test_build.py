"""The build of a store: complete for an evaluation, resumable, the same for any number of processes."""

import importlib.util
import os
import shutil
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from pandas.testing import assert_frame_equal

from metaopt import baselines, tasks
from metaopt.baselines import CurveKey, Store, envelope_key, evaluation_key, store, tune, tuning_keys
from metaopt.baselines import build as build_module
from metaopt.baselines.build import build, is_full_batch, shipped, suits
from metaopt.errors import ConfigError, WorkerLostError
from metaopt.evaluation import evaluate

ENTRIES = [("moving", "6x6-minimum", 2, 12), ("clean", "15x3-none", 3, 10)]
NAMES = ("sgd", "adamw", "adamw+wsd", "lbfgs")


def spec_of(template, seed, horizon):
    return tasks.get("quadratic").sample(template, seed, (horizon, horizon))


SPECS = [spec_of(*entry[1:]) for entry in ENTRIES]
CHOSEN = [baselines.get(name) for name in NAMES]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Of the evaluations; they take longer than the runs."""
    monkeypatch.setattr("metaopt.evaluation.report.catalogue", lambda results: {})


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*"))}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("store"), []
    done = build(SPECS, CHOSEN, Store((folder,)), progress=lambda *call: said.append(call))
    return folder, done, said


def suite(path):
    lines = ["description: small", "tasks:"]
    for (name, template, seed, horizon), spec in zip(ENTRIES, SPECS, strict=True):
        values = f'name: {name}, family: quadratic, template: {template}, seed: {seed}, horizon: {horizon}, hash: "{spec.hash}"'
        lines.append(f"  - {{{values}}}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_build_holds_what_an_evaluation_needs(built, tmp_path):
    folder, done, _ = built
    before = files(folder)
    assert done.computed == len(before)
    assert (done.found, done.failures) == (0, {})
    for chosen in (["sgd", "adamw"], ["adamw", "adamw+wsd", "sgd"]):
        report = evaluate("sgd", suite(tmp_path / "small.yaml"), chosen, out=tmp_path / "-".join(chosen), store=Store((folder,)))
        assert set(report.scores[report.scores.kind == "baseline"].learner) == set(chosen)
        assert set(files(folder)) >= set(before)
    added = set(files(folder)) - set(before)
    assert not added, "only evaluations of other sets of baselines need other references"


def test_a_hundred_recorded_trials_add_a_row_on_tunability_and_change_no_other_number(built, tmp_path):
    usual, many = built[0], tmp_path / "many"
    shutil.copytree(usual, many)
    chosen, path = [baselines.get(name) for name in ("sgd", "adamw")], suite(tmp_path / "small.yaml")
    more = build(SPECS, chosen, Store((many,)), trials=100)
    assert more.computed == 3 * len(SPECS) * len(chosen), "blocks of at most thirty further trials, and nothing that they chose"
    reports = [
        evaluate("sgd", path, ["sgd", "adamw"], out=tmp_path / f"report-{folder.name}", store=Store((folder,))) for folder in (usual, many)
    ]
    for name in ("scores", "summary", "tasks", "targets", "contrasts", "score_profile", "time_profile"):
        assert_frame_equal(*(getattr(report, name) for report in reports))
    before, after = (report.tunability for report in reports)
    assert set(after.trials) == {*baselines.TRIALS, 100}
    kept = after[after.trials <= max(baselines.TRIALS)].reset_index(drop=True)
    assert_frame_equal(kept, before)


def test_everything_tried_is_there(built):
    shelf = Store((built[0],))
    for spec in SPECS:
        assert shelf.get(envelope_key(spec)) is not None
        for one in CHOSEN:
            assert (shelf.get(tuning_keys(spec, one)[0]) is not None) == suits(one, spec)


def test_building_again_computes_nothing_and_changes_nothing(built):
    folder, done, _ = built
    before = files(folder)
    again = build(SPECS, CHOSEN, Store((folder,)))
    assert (again.computed, again.found) == (0, done.computed)
    assert files(folder) == before


def test_a_killed_build_goes_on_and_gives_the_same_bytes(built, tmp_path, monkeypatch):
    left, run = [5], build_module.run_job

    def dies(job):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return run(job)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "run_job", dies)
        with pytest.raises(KeyboardInterrupt):
            build(SPECS, CHOSEN, Store((tmp_path,)))
    assert len(files(tmp_path)) == 5
    rest = build(SPECS, CHOSEN, Store((tmp_path,)))
    assert rest.found == 5
    assert files(tmp_path) == files(built[0])


def test_progress_counts_steps_to_the_end_of_each_round(built):
    said = built[2]
    assert {call[0] for call in said} == {"baselines, tuning", "baselines, runs"}
    for what in ("baselines, tuning", "baselines, runs"):
        done = [call[1] for call in said if call[0] == what]
        assert done == sorted(done)
        assert done[-1] == next(call[2] for call in said if call[0] == what)


def test_a_set_that_fails_is_counted_and_the_others_are_there(tmp_path, monkeypatch):
    run = build_module.run_job

    def fails(job):
        if job.learner.schedule.decay == "linear":
            raise RuntimeError("out of order")
        return run(job)

    monkeypatch.setattr(build_module, "run_job", fails)
    chosen = [baselines.get(name) for name in ("sgd", "sgd+wsd")]
    done = build(SPECS[:1], chosen, Store((tmp_path,)))
    assert done.failures == {f"sgd+wsd on {SPECS[0].hash}, horizon 12": "RuntimeError: out of order"}
    assert done.computed == len(files(tmp_path)) > 2


def test_full_batches_are_told_by_their_batches():
    moving, clean = (tasks.build(spec) for spec in SPECS)
    assert is_full_batch(clean)
    assert not is_full_batch(moving)
    assert not is_full_batch(tasks.build(spec_of("20x1-gradient", 1, 10)))
    assert [suits(baselines.get("lbfgs"), spec) for spec in SPECS] == [False, True]
    assert suits(baselines.get("adamw"), SPECS[0])


def test_the_shipped_stores_have_every_optimizer():
    assert {name for name in baselines.names() if baselines.get(name).stored} <= set(shipped())
    assert "dog" not in shipped(), "computed at first use"
    assert {"adamw+wsd", "adamw+constant", "sgd_momentum+inverse_sqrt"} <= set(shipped())
    assert len(set(shipped())) == len(shipped())


def test_bad_input_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="workers must be >= 1, got 0"):
        build(SPECS, CHOSEN, Store((tmp_path,)), workers=0)
    with pytest.raises(ConfigError, match="got 0"):
        build(SPECS, CHOSEN, Store((tmp_path,)), trials=0)
    assert not files(tmp_path)


def test_the_thread_count_of_the_caller_is_restored(tmp_path):
    before = torch.get_num_threads()
    build(SPECS[:1], [baselines.get("sgd")], Store((tmp_path,)))
    assert torch.get_num_threads() == before


@pytest.fixture
def script():
    path = Path(__file__).parents[2] / "scripts" / "build_baseline_store.py"
    spec = importlib.util.spec_from_file_location("build_baseline_store", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_builds_merges_prunes_and_says_so(script, built, tmp_path, capsys):
    small = suite(tmp_path / "small.yaml")
    common = ["--suite", small, "--workers", "1", "--out", str(tmp_path / "out"), "--baselines", ",".join(NAMES)]
    assert script.main([*common, "--merge", str(built[0])]) == 0
    assert f"0 computed, {built[1].computed} found" in capsys.readouterr().out
    stale = CurveKey(SPECS[0], baselines.get("sgd"), (baselines.get("sgd").at(7.0),), (1,))
    Store((tmp_path / "out",)).put(stale, Store((built[0],)).get(envelope_key(SPECS[0])))
    (tmp_path / "out" / envelope_key(SPECS[0]).file_name).unlink()
    assert script.main([*common, "--prune"]) == 0
    said = capsys.readouterr()
    assert "1 computed" in said.out
    assert "1 removed" in said.out
    assert "100.0% of" in said.err
    assert "min left" in said.err
    assert files(tmp_path / "out") == files(built[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "quickk"], "suite 'quickk' is unknown; did you mean 'quick'"),
        (["--baselines", "adamw,sgdd"], "baseline 'sgdd' is unknown"),
        (["--trials", "101", "--baselines", "sgd"], "trials must be in [1, 100], got 101"),
    ],
)
def test_the_command_refuses_in_one_line(script, tmp_path, capsys, arguments, message):
    assert script.main([*arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(built, tmp_path):
    build(SPECS, CHOSEN, Store((tmp_path,)), workers=2)
    assert files(tmp_path) == files(built[0])


def test_a_process_that_dies_is_one_line(tmp_path, monkeypatch):
    class Broken:
        def __init__(self, *arguments):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *arguments):
            return None

        def shutdown(self, **options):
            pass

        def submit(self, function, key):
            future = Future()
            future.set_exception(build_module.BrokenProcessPool("gone"))
            return future

    monkeypatch.setattr(build_module, "ProcessPoolExecutor", Broken)
    with pytest.raises(WorkerLostError, match="a process of the build died"):
        build(SPECS, CHOSEN, Store((tmp_path,)), workers=2)


def test_a_set_of_curves_is_small(built):
    """What decides the size of the shipped stores: a search of fifteen trials and three seeds, and the three trials that it chose."""
    shelf, search = Store((built[0],)), tuning_keys(SPECS[0], CHOSEN[1])[0]
    found = shelf.get(search)
    assert found.train.size == 0
    assert found.heldout.shape == (1, 45)
    assert os.path.getsize(built[0] / search.file_name) < 3_000
    chosen = evaluation_key(SPECS[0], tune([search], {search: found}, 10.0), 0)
    runs = shelf.get(chosen)
    missing = (41 - len(runs.steps)) * runs.heldout.shape[1] * 8  # points that a longer run has
    assert os.path.getsize(built[0] / chosen.file_name) + missing < 7_500
    assert store.BUNDLED.is_dir()
