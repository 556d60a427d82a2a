"""A snapshot becomes files and comes back the same, byte for byte."""

from pathlib import Path

import pytest
import torch

from metaopt.config import load_config
from metaopt.errors import CorruptCheckpointError
from metaopt.outer.average import ThetaAverage
from metaopt.outer.checkpoint import Checkpoint, Meta, latest, save
from metaopt.outer.selection import Selection
from metaopt.outer.shards import ShardWorker, make_learner, shard_sources
from metaopt.outer.snapshot import Snapshot
from metaopt.outer.update import OuterUpdate

CONFIG = load_config(
    "quickstart", ["outer.shard_particles=2", "outer.estimator.window=4", "tasks.0.horizon=[5, 9]", "tasks.1.horizon=[5, 9]"]
)


def snapshot() -> Snapshot:
    theta = make_learner(CONFIG).init_theta(0)
    update = OuterUpdate(theta, CONFIG.outer.optimizer, CONFIG.outer.steps)
    worker = ShardWorker(CONFIG, "cpu")
    states, after = [], []
    gradients = {}
    for shard in range(len(shard_sources(CONFIG))):
        evolution = worker._fresh(shard)
        if shard != 1:
            gradients[shard] = evolution.estimate(theta, 0).grad
        states.append(None if shard == 1 else evolution.state())
        after.append(None if shard == 1 else 0)
    update.apply(0, gradients)
    return Snapshot(1, update.theta, update.state(), after, states, [3], {"inner_steps": 48, "skipped": 0}, {"metrics": 1, "timing": 2})


def commit(directory: Path, state: Snapshot) -> Checkpoint:
    save(directory, state.step, state.files(CONFIG), Meta(CONFIG.hash, {}))
    found = latest(directory)
    assert found is not None
    return found


def test_files_come_back_as_the_same_bytes(tmp_path: Path) -> None:
    state = snapshot()
    files = state.files(CONFIG)
    shards = [f"particles-{i}.safetensors" for i in (0, 2, 3)]
    assert sorted(files) == sorted(["theta.safetensors", "outer.pt", "rng.json", "pending.json", "metrics.json", *shards])
    again = Snapshot.read(commit(tmp_path, state))
    assert again.files(CONFIG) == files
    assert (again.step, again.after, again.quarantined) == (1, [0, None, 0, 0], [3])
    assert (again.totals, again.rows) == (state.totals, state.rows)
    assert again.shards[1] is None
    assert list(again.theta) == list(state.theta)  # the order of theta is the order of the flat vector


def test_what_comes_back_continues_exactly(tmp_path: Path) -> None:
    state = snapshot()
    again = Snapshot.read(commit(tmp_path, state))
    thetas = []
    for each in (state, again):
        worker, gradients = ShardWorker(CONFIG, "cpu"), {}
        for shard in (0, 2):
            evolution = worker._fresh(shard)
            evolution.load(each.shards[shard])
            gradients[shard] = evolution.estimate(each.theta, 1).grad
        update = OuterUpdate(each.theta, CONFIG.outer.optimizer, CONFIG.outer.steps)
        update.load(each.theta, each.outer)
        update.apply(1, gradients)
        thetas.append(update.theta)
    assert all(torch.equal(thetas[0][name], thetas[1][name]) for name in thetas[0])
    assert any(not torch.equal(thetas[0][name], state.theta[name]) for name in thetas[0])


def test_a_missing_shard_is_corruption(tmp_path: Path) -> None:
    state = snapshot()
    state.shards[0] = None  # while `after` says that it ran
    with pytest.raises(CorruptCheckpointError, match=r"no file 'particles-0\.safetensors'"):
        Snapshot.read(commit(tmp_path, state))


def test_average_and_selection_come_back_and_are_left_out_when_there_are_none(tmp_path: Path) -> None:
    state = snapshot()
    assert not {"average.safetensors", "selection.safetensors"} & state.files(CONFIG).keys()
    bare = Snapshot.read(commit(tmp_path, state))
    assert (bare.average, bare.selection) == (None, None)
    state.average = {"count": 2, "weight": 1.9, "mean": {"w": torch.ones(2)}}
    state.selection = {"validated": 4, "best": {"a/b": torch.ones(3).double()}, "given_up": ["c/d"], "last_score": None}
    again = Snapshot.read(commit(tmp_path, state))
    assert again.files(CONFIG) == state.files(CONFIG)
    assert again.average is not None
    assert again.average["weight"] == 1.9
    assert again.selection is not None
    assert again.selection["given_up"] == ["c/d"]


def test_the_golden_snapshot_of_schema_2_can_still_be_read() -> None:
    """Written by the version that introduced the schema, from the values below; it is never written again."""
    found = latest(Path(__file__).parents[1] / "data" / "checkpoints-schema-2")
    assert found is not None
    assert (found.step, found.manifest["schema"], found.manifest["score"]) == (4, 2, 0.25)
    state = Snapshot.read(found)
    assert torch.equal(state.theta["w"], torch.arange(6, dtype=torch.float64).reshape(2, 3) / 7)
    assert (state.after, state.quarantined, state.rows) == ([3, None], [1], {"metrics": 6, "timing": 6})
    assert state.costs == {"quadratic": 0, "digits_mlp": 4}
    assert state.shards[0] is not None
    assert state.shards[0]["pairs"]["stage"] == [1]
    average = ThetaAverage(0.9)
    average.load(state.average or {})
    assert (average.count, float(average.value({})["log_step"])) == (3, -3.25)
    selection = Selection.of(2, state.selection)
    assert (selection.best_step, selection.best_kind, selection.given_up) == (4, "average", ["quadratic/b"])
    assert selection.score[0] == 0.25
    assert float(selection.best_theta["log_step"]) == -3.0
