"""One driver a run directory, no overwriting, no names that lead elsewhere."""

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.errors import ConfigError
from metaopt.outer.run_directory import RunDirectory, check_name, member


def test_a_run_is_made_and_resumed(tmp_path):
    path = tmp_path / "runs" / "a"
    with RunDirectory(path) as run:
        assert os.listdir(path) == ["lock"]
        run.write_config("seed: 0\n")
        assert sorted(os.listdir(path)) == ["checkpoints", "config.yaml", "lock"]
        assert (run.metrics, run.timing) == (path / "metrics.jsonl", path / "timing.jsonl")
    with pytest.raises(ConfigError, match=r"runs/a is not empty; continue it with --resume or give another path"):
        RunDirectory(path)
    with RunDirectory(path, resume=True) as run:
        assert run.config.read_text() == "seed: 0\n"


@pytest.mark.parametrize("resume", [False, True])
def test_missing_empty_and_stillborn_directories_start_a_run(tmp_path, resume):
    (tmp_path / "empty").mkdir()
    with RunDirectory(tmp_path / "stillborn"):
        pass  # died before its configuration was written
    for name in ("missing", "empty", "stillborn"):
        with RunDirectory(tmp_path / name, resume) as run:
            assert run.path.is_dir()


def test_refusals_write_nothing(tmp_path):
    foreign, file = tmp_path / "foreign", tmp_path / "file"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    file.touch()
    with pytest.raises(ConfigError, match=r"foreign is no run directory \(no config\.yaml\)"):
        RunDirectory(foreign, resume=True)
    with pytest.raises(ConfigError, match="not empty"):
        RunDirectory(foreign)
    with pytest.raises(ConfigError, match="is a file"):
        RunDirectory(file)
    with pytest.raises(ConfigError, match=r"cannot be made: Not a directory"):
        RunDirectory(file / "below")
    assert os.listdir(foreign) == ["thesis.tex"]


def test_a_second_driver_is_refused_until_the_first_dies(tmp_path):
    path = tmp_path / "run"
    script = f"""
import sys
from metaopt.outer.run_directory import RunDirectory
run = RunDirectory({str(path)!r})
run.write_config("a: 1")
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "ready\n"
        for resume in (False, True):
            with pytest.raises(ConfigError, match=f"run is in use by process {first.pid} on "):
                RunDirectory(path, resume)
        first.send_signal(signal.SIGKILL)
        first.wait()
    with RunDirectory(path, resume=True) as run, pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        RunDirectory(run.path, resume=True)


HOSTILE = ["", ".", "..", "../x", "a/b", "a\\b", "/etc", ".hidden", "-flag", "a..b", "a b", "a\n", "ü", "a" * 101, "a\x00"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="name must be"):
        member(tmp_path, name, "name")


@given(st.text())
def test_accepted_names_stay_below_the_root(name):
    try:
        check_name(name, "name")
    except ConfigError:
        return
    assert os.path.normpath(os.path.join("/root", name)) == f"/root/{name}"


def test_links_are_refused(tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    assert member(tmp_path, "plain-1.0", "name") == tmp_path / "plain-1.0"
    with pytest.raises(ConfigError, match="is a link"):
        member(tmp_path, "link", "name")
