"""Exit statuses, one-line errors and help of the command itself."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from metaopt import __version__, api
from metaopt.cli.main import cli
from metaopt.errors import (
    CorruptCheckpointError,
    DivergedError,
    IncompatibleCheckpointError,
    MetaoptError,
    TaskError,
    UnsafeArtifactError,
    WorkerLostError,
)


def _raise(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UnsafeArtifactError("it is cut"), 2, "it is cut"),
        (IncompatibleCheckpointError("another config"), 2, "another config"),
        (CorruptCheckpointError("no commit is whole"), 2, "no commit is whole"),
        (TaskError("family broke"), 4, "family broke"),
        (WorkerLostError("lost\ntoo often"), 4, "lost too often"),
        (DivergedError("ten steps in a row"), 4, "ten steps in a row"),
        (MetaoptError("something"), 4, "something"),
        (OSError(28, "No space left on device"), 4, "failed with OSError: [Errno 28] No space left on device (-v shows where)"),
        (ZeroDivisionError("oops"), 4, "failed with ZeroDivisionError: oops (-v shows where)"),
        (KeyboardInterrupt(), 75, "stopped by a signal"),
    ],
)
def test_every_error_has_its_status_and_one_line(monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, line: str) -> None:
    monkeypatch.setattr(api, "train", _raise(error))
    result = CliRunner().invoke(cli, ["train", "quickstart"])
    assert (result.exit_code, result.stdout, result.stderr.lstrip("\n")) == (status, "", f"metaopt: {line}\n")


def test_verbose_shows_where_an_error_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "train", _raise(ZeroDivisionError("oops")))
    result = CliRunner().invoke(cli, ["train", "-v", "quickstart"])
    assert result.exit_code == 4
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("metaopt: failed with ZeroDivisionError: oops (-v shows where)\n")


def test_help_and_version() -> None:
    runner = CliRunner()
    bare = runner.invoke(cli, [])
    assert (bare.exit_code, bare.stdout) == (2, "")
    for verb in ("train", "evaluate", "list", "show", "doctor"):
        assert verb in bare.stderr
        shown = runner.invoke(cli, [verb, "--help"])
        assert shown.exit_code == 0
        assert f"Usage: metaopt {verb}" in shown.stdout
    assert runner.invoke(cli, ["--version"]).stdout == f"metaopt {__version__}\n"


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -c 'from metaopt.cli.main import main; main()' list configs | head -c 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert (len(result.stdout), result.stderr) == (1, "")
