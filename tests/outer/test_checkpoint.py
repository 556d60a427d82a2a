"""A commit is there whole or not at all, whatever is cut, flipped, deleted, full or killed."""

import errno
import itertools
import shutil
from pathlib import Path

import pytest
import torch

from metaopt.errors import CheckpointError, ConfigError, CorruptCheckpointError, IncompatibleCheckpointError
from metaopt.outer import checkpoint as module
from metaopt.outer.blobs import from_blob, from_json, from_torch
from metaopt.outer.checkpoint import Keep, Meta, check_compatible, latest, save
from metaopt.outer.storage import Storage

META = Meta("c0ffee", {"metaopt": "0.1.0", "torch": "2.13.0"})


def content(step):
    """Three files whose bytes tell the step."""
    return {"theta.safetensors": bytes([step]) * 100, "outer.pt": b"o" * 33 + bytes([step]), "pending.json": b'{"step": %d}' % step}


def commits(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def two(tmp_path):
    """Commits of steps 5 and 10."""
    for step in (5, 10):
        save(tmp_path, step, content(step), META)
    return tmp_path


def assert_is(commit, step):
    assert commit.step == step
    assert {name: commit.read(name) for name in commit.names} == content(step)


def test_save_and_latest(tmp_path):
    assert latest(tmp_path) is None
    order = []
    files = {name: lambda name=name, data=data: (order.append(name), data)[1] for name, data in content(5).items()}
    assert_is(save(tmp_path, 5, files, META), 5)
    assert order == sorted(content(5))
    assert_is(save(tmp_path, 10, content(10), META), 10)
    found = latest(tmp_path)
    assert_is(found, 10)
    assert found.fallbacks == ()
    assert found.manifest["parent"] == "step-00000005"
    assert found.manifest["commit"] == 2
    with pytest.raises(CorruptCheckpointError, match=r"no file 'x'; it has outer\.pt, pending\.json, theta\.safetensors"):
        found.read("x")


FILES = [*content(0), "manifest.json"]


@pytest.mark.parametrize("name", FILES)
def test_every_damage_to_a_file_is_noticed(two, name, caplog):
    path = two / "step-00000010" / name
    whole = path.read_bytes()
    damaged = [whole[: len(whole) * sixteenth // 16] for sixteenth in range(16)]
    damaged += [whole + b"x", b""]
    for bit in range(0, len(whole) * 8, 7):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        found = latest(two)
        assert_is(found, 5)
        assert len(found.fallbacks) == 1
        assert str(path) in found.fallbacks[0]
    assert "falling back to step-00000005" in caplog.text
    path.unlink()
    assert_is(latest(two), 5)
    path.symlink_to(two / "step-00000005" / name)
    assert_is(latest(two), 5)
    path.unlink()
    path.write_bytes(whole)
    assert_is(latest(two), 10)


def test_no_sound_commit_is_an_error_and_not_a_fresh_start(two):
    for path in two.iterdir():
        (path / "outer.pt").unlink()
    with pytest.raises(CorruptCheckpointError, match=r"no usable checkpoint in .*step-00000010/outer\.pt: No such file.*step-00000005"):
        latest(two)


def test_a_commit_under_another_step_is_refused(two):
    (two / "step-00000010").rename(two / "step-00000011")
    assert_is(latest(two), 5)


class Killed(BaseException):
    """Stands for SIGKILL: nothing that the code does after it counts."""


class Faulty(Storage):
    """Fails or dies at operation number `at`; a write leaves `part` of its bytes."""

    def __init__(self, at, error=None, part=0.5):
        self.at, self.error, self.part, self.done = at, error, part, 0

    def _strike(self):
        self.done += 1
        return self.done == self.at + 1

    def _fail(self):
        if self.error is None:
            raise Killed
        raise OSError(self.error, "No space left on device")

    def write(self, path, data):
        if self._strike():
            path.write_bytes(data[: int(len(data) * self.part)])
            self._fail()
        super().write(path, data)


def _faulty(name):
    def operation(self, *arguments):
        if self._strike():
            self._fail()
        getattr(Storage, name)(self, *arguments)

    return operation


for _name in ("make_directory", "sync_directory", "rename", "remove"):
    setattr(Faulty, _name, _faulty(_name))


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_killed_at_every_operation_leaves_old_or_new(tmp_path, part):
    for at in itertools.count():
        directory = tmp_path / str(at)
        directory.mkdir()
        for step in (5, 10, 15):
            save(directory, step, content(step), META)
        storage = Faulty(at, part=part)
        try:
            save(directory, 20, content(20), META, storage=storage)
            break
        except Killed:
            found = latest(directory)
            assert found.fallbacks == ()
            assert_is(found, found.step)
            assert found.step == (20 if at >= storage.done - 1 and (directory / "step-00000020").exists() else 15)
        assert_is(save(directory, 25, content(25), META), 25)
        assert not list(directory.glob(".unfinished-*"))
    assert at >= 9  # a directory, four files, syncs, a rename, a removal


def test_disk_full_at_every_operation_keeps_the_old_commit(two, caplog):
    for at in itertools.count():
        full = Faulty(at, errno.ENOSPC)
        if at == 8:  # all but the deletion of step 5 has happened
            save(two, 15, content(15), META, keep=Keep(last=2), storage=full)
            assert "step-00000005: could not be deleted (No space left on device)" in caplog.text
            break
        with pytest.raises(CheckpointError, match=r"step-00000015: not committed \(No space left on device\); earlier commits are valid"):
            save(two, 15, content(15), META, keep=Keep(last=2), storage=full)
        assert not list(two.glob(".unfinished-*"))
        assert latest(two).step in (10, 15)  # 15: only the last flush failed
        shutil.rmtree(two / "step-00000015", ignore_errors=True)
    assert_is(latest(two), 15)


def test_a_commit_that_was_fallen_back_from_is_replaced(two):
    (two / "step-00000010" / "outer.pt").write_bytes(b"")
    assert_is(save(two, 10, content(10), META), 10)
    assert_is(latest(two), 10)
    assert latest(two).manifest["parent"] == "step-00000005"
    assert commits(two) == ["step-00000005", "step-00000010"]


def test_keep_last_best_and_every_tenth(tmp_path):
    for step in range(1, 25):
        save(tmp_path, step, content(step), Meta("c", {}, score=abs(step - 7.0)))
    assert [int(name[5:]) for name in commits(tmp_path)] == [7, 10, 20, 22, 23, 24]


def test_nothing_is_deleted_when_the_new_commit_does_not_verify(two):
    class Rotten(Storage):
        def write(self, path, data):
            super().write(path, data if path.name == "manifest.json" else data[:-1] + b"?")

    with pytest.raises(CorruptCheckpointError):
        save(two, 15, content(15), META, keep=Keep(last=1, best=0, every=0), storage=Rotten())
    assert commits(two) == ["step-00000005", "step-00000010", "step-00000015"]
    assert_is(latest(two), 10)


def test_other_config_versions_or_schema_are_listed(two, monkeypatch):
    check_compatible(latest(two), META)
    with pytest.raises(IncompatibleCheckpointError) as caught:
        check_compatible(latest(two), Meta("beef", {"torch": "2.14.0", "metaopt": "0.1.0", "python": "3.12"}))
    for difference in ("config hash c0ffee (now beef)", "torch 2.13.0 (now 2.14.0)", "python none (now 3.12)"):
        assert difference in str(caught.value)
    assert "0.1.0" not in str(caught.value)
    monkeypatch.setattr(module, "READABLE", (3, 4))
    with pytest.raises(IncompatibleCheckpointError, match="has checkpoint schema 2, this version of metaopt reads 3 and 4"):
        latest(two)


@pytest.mark.parametrize("name", ["../theta", "a/b", ".hidden", "", "a" * 101])
def test_hostile_file_names_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="checkpoint file must be"):
        save(tmp_path, 1, {name: b""}, META)
    assert latest(tmp_path) is None
    assert commits(tmp_path) == []


def test_the_golden_checkpoint_of_schema_1_can_still_be_read():
    """Written by the version that introduced the schema, from the values below; it is never written again."""
    found = latest(Path(__file__).parents[1] / "data" / "checkpoints-schema-1")
    check_compatible(found, Meta("c0ffee", {"metaopt": "0.1.0"}))
    assert (found.step, found.manifest["score"]) == (5, 0.25)
    theta = from_blob(found.read("theta.safetensors"))
    assert list(theta) == ["layer", "steps"]
    assert torch.equal(theta["layer"]["w"], torch.arange(6, dtype=torch.float64).reshape(2, 3) / 7)
    assert theta["steps"] == [5, 0.1, None]
    assert torch.equal(from_torch(found.read("outer.pt"))["m"], torch.ones(2))
    assert from_json(found.read("metrics.json")) == {"metrics": 5}
