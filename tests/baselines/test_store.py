"""The store: exact keys, whole files, nothing stale."""

import dataclasses
import gzip

import numpy as np
import pytest

from metaopt import baselines, tasks
from metaopt.baselines import CurveKey, Store, Trial, run_job, store
from metaopt.baselines.build import shipped, suits

SGD = baselines.get("sgd")


@pytest.fixture
def key():
    spec = tasks.get("quadratic").sample("6x6-minimum", 3, (20, 20))
    return CurveKey(spec, SGD, (SGD.at(0.01), SGD.at(0.1)), (11, 12))


@pytest.fixture
def curves(key):
    return run_job(key.job()).stored()


def same(left, right):
    return all(np.array_equal(getattr(left, f.name), getattr(right, f.name)) for f in dataclasses.fields(left))


def test_what_is_put_comes_back(tmp_path, key, curves):
    shelf = Store((tmp_path / "a",))
    assert shelf.get(key) is None
    shelf.put(key, curves)
    assert same(shelf.get(key), curves)
    assert [path.name for path in (tmp_path / "a").iterdir()] == [key.file_name], "no temporary file stays"


def test_equal_curves_are_equal_bytes_and_name_their_versions(tmp_path, key, curves):
    for i in range(4):
        Store((tmp_path / str(i),)).put(key, curves)
    texts = {(tmp_path / str(i) / key.file_name).read_bytes() for i in range(4)}
    assert len(texts) == 1
    assert b'"torch": "' in gzip.decompress(texts.pop())


def test_the_bundled_folder_is_read_first_and_never_written(tmp_path, key, curves):
    bundled, cache = tmp_path / "bundled", tmp_path / "cache"
    Store((bundled,)).put(key, curves)
    both = Store((bundled, cache))
    assert same(both.get(key), curves)
    other = dataclasses.replace(key, seeds=(13, 14))
    both.put(other, curves)
    assert (cache / other.file_name).is_file()
    assert not (bundled / other.file_name).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"trials": (SGD.at(0.01), SGD.at(0.2))},
        {"trials": (SGD.at(0.01), Trial.of({"lr": 0.1, "weight_decay": 1e-3}))},
        {"seeds": (11, 13)},
        {"baseline": baselines.get("sgd_momentum")},
        {"baseline": baselines.get("sgd+wsd")},
        {"baseline": dataclasses.replace(SGD, options=(("weight_decay", 0.5),))},
        {"spec": tasks.get("quadratic").sample("6x6-minimum", 4, (20, 20))},
        {"spec": tasks.get("quadratic").sample("6x6-minimum", 3, (21, 21))},
    ],
)
def test_every_part_of_the_key_counts(key, change):
    assert dataclasses.replace(key, **change).file_name != key.file_name


def test_curves_of_other_code_are_stale(tmp_path, key, curves, monkeypatch):
    shelf = Store((tmp_path,))
    shelf.put(key, curves)
    with monkeypatch.context() as patch:
        patch.setattr(store, "code_version", lambda *_: "0" * 16)
        assert shelf.get(key) is None
    assert shelf.get(key) is not None
    monkeypatch.setattr(store, "optimizer_code", lambda learner: "0" * 16)
    assert shelf.get(key) is None


def test_a_wider_search_leaves_curves_of_its_trials_fresh(key):
    wider = dataclasses.replace(SGD, axes=(), default_lr=0.5, schedules=("warmup_cosine",))
    assert dataclasses.replace(key, baseline=wider).file_name == key.file_name


def test_runs_by_trial(key, curves):
    by_trial = key.by_trial(curves)
    assert by_trial.shape == (2, len(curves.steps), 2)
    for i, trial in enumerate(key.trials):
        assert np.array_equal(by_trial[i], key.at(curves, trial).heldout)
    assert key.work == 20 * 2 * 2


def test_what_nobody_reads_is_not_kept(tmp_path, key, curves):
    thin, thinnest = (dataclasses.replace(key, keep=keep) for keep in ("heldout", "finals"))
    assert len({one.file_name for one in (key, thin, thinnest)}) == 3, "a thin file must not stand in for a whole one"
    shelf = Store((tmp_path,))
    for one in (key, thin, thinnest):
        shelf.put(one, curves)
        assert same(shelf.get(one), one.kept(curves))
    assert shelf.get(thin).train.shape == shelf.get(thinnest).train.shape == (0, 4)
    assert np.array_equal(shelf.get(thin).heldout, curves.heldout)
    assert np.array_equal(shelf.get(thinnest).heldout, curves.heldout[-1:])
    assert thin.at(shelf.get(thin), key.trials[1]).heldout.shape == (len(curves.steps), 2)
    sizes = [(tmp_path / one.file_name).stat().st_size for one in (thinnest, thin, key)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(("points", "runs"), [(1, 45), (41, 15), (3, 1), (0, 7)])
def test_losses_survive_being_packed(points, runs):
    losses = np.random.default_rng(0).lognormal(0.0, 20.0, (points, runs)).astype(np.float32).astype(np.float64)
    back = store._joined(store._planes(losses), runs)
    assert np.array_equal(back, losses)
    assert back.flags.c_contiguous


def test_stores_of_two_machines_merge(tmp_path, key, curves):
    here, there = tmp_path / "here", tmp_path / "there"
    other = dataclasses.replace(key, seeds=(13, 14))
    Store((here,)).put(key, curves)
    for one in (key, other):
        Store((there,)).put(one, curves)
    (there / "cut.safetensors.gz").write_bytes(b"x")
    (there / f"{'0' * 32}.safetensors.gz").write_bytes((there / other.file_name).read_bytes())
    before = (here / key.file_name).stat().st_mtime_ns
    assert Store((here,)).merge(there) == 1
    assert same(Store((here,)).get(other), curves)
    assert (here / key.file_name).stat().st_mtime_ns == before
    assert len(list(here.iterdir())) == 2
    assert Store((here,)).merge(there) == 0


def test_a_file_under_the_wrong_name_is_not_believed(tmp_path, key, curves):
    shelf = Store((tmp_path,))
    shelf.put(key, curves)
    other = dataclasses.replace(key, seeds=(13, 14))
    (tmp_path / key.file_name).rename(tmp_path / other.file_name)
    assert shelf.get(other) is None


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_cut_file_counts_as_missing(tmp_path, key, curves, cut):
    shelf = Store((tmp_path,))
    shelf.put(key, curves)
    path = tmp_path / key.file_name
    path.write_bytes(path.read_bytes()[:cut])
    assert shelf.get(key) is None


def test_the_default_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("METAOPT_CACHE", str(tmp_path))
    assert Store().folders == (store.BUNDLED, tmp_path / "baselines")


def test_pruning_removes_what_nobody_asked_for(tmp_path, key, curves):
    old = dataclasses.replace(key, seeds=(13, 14))
    Store((tmp_path,)).put(old, curves)
    Store((tmp_path,)).put(key, curves)
    shelf = Store((tmp_path,))
    shelf.get(key)
    assert shelf.prune() == 1
    assert [path.name for path in tmp_path.iterdir()] == [key.file_name]


def test_the_bundled_store_is_fresh_and_true():
    """Fails when code that a curve depends on has changed: run `python scripts/build_baseline_store.py` and look at the difference."""
    from metaopt.evaluation import load_suite
    from metaopt.evaluation.suites import pinned_hash

    bundled = Store((store.BUNDLED,))
    specs = {name: spec for suite in ("quick", "standard") for name, spec in load_suite(suite).specs.items()}
    own_text = {name for name, spec in specs.items() if pinned_hash(spec) != spec.hash}  # curves on a text are those of one Python version
    places = [(name, b) for name, spec in specs.items() if name not in own_text for b in shipped() if suits(baselines.get(b), spec)]
    keys = {(name, b): baselines.tuning_keys(specs[name], baselines.get(b))[0] for name, b in places}
    stale = [place for place, key in keys.items() if bundled.get(key) is None]
    assert not stale, "run python scripts/build_baseline_store.py --suite quick --suite standard --prune"
    key = keys["quadratic-clean-15x3", "adamw"]
    kept, again = bundled.get(key), key.kept(run_job(key.job()))
    gentle = [i for i, trial in enumerate(key.trials) if trial.rate < 0.2]  # above, rounding decides where a run that bounces lands
    assert key.by_trial(kept)[gentle] == pytest.approx(key.by_trial(again)[gentle], rel=1e-3, abs=1e-5)
