"""`metaopt train`: what it passes on, and what it says and returns at each end of a run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from metaopt import api
from metaopt.cli.main import cli
from metaopt.outer.trainer import Run


class FakeTrain:
    """Stands for `api.train`: keeps its arguments and answers with a run."""

    def __init__(self, **end: Any) -> None:
        paths = {"path": Path("runs/x"), "artifact": Path("runs/x/artifact")}
        nothing = {"quarantined": 0, "stopped": False, "change": None, "chosen": None, "ended_early": None}
        self.run = Run(**{**paths, **nothing, **end})
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> Run:
        *self.arguments, progress, announce = arguments
        if announce is not None:
            announce("about 2 s and 3 MiB")
        progress("outer step", 2, 2, {"meta-loss": 0.5})
        return self.run


def test_arguments_reach_the_front_door(monkeypatch: pytest.MonkeyPatch) -> None:
    train = FakeTrain()
    monkeypatch.setattr(api, "train", train)
    words = [
        "--seed",
        "3",
        "quickstart",
        "--workers",
        "2",
        "outer.steps=5",
        "--run-dir",
        "there",
        "--resume",
        "--device",
        "cpu",
        "compile=true",
    ]
    result = CliRunner().invoke(cli, ["train", *words])
    assert train.arguments == ["quickstart", ("outer.steps=5", "compile=true"), 3, Path("there"), 2, None, "cpu", True]
    assert (result.exit_code, result.stdout) == (0, "runs/x/artifact\n")
    assert result.stderr == "expected: about 2 s and 3 MiB\nouter step 2/2, meta-loss 0.5, 0 s left\n"


def test_quiet_prints_the_result_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "train", FakeTrain())
    result = CliRunner().invoke(cli, ["train", "quickstart", "-q"])
    assert (result.stdout, result.stderr) == ("runs/x/artifact\n", "")


def test_quarantined_items_are_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "train", FakeTrain(quarantined=2))
    result = CliRunner().invoke(cli, ["train", "quickstart", "-q"])
    assert (result.exit_code, result.stdout) == (3, "runs/x/artifact\n")
    assert result.stderr == "2 work items were quarantined, see runs/x/timing.jsonl\n"


def test_a_stopped_run_is_status_75_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "train", FakeTrain(stopped=True, artifact=None))
    result = CliRunner().invoke(cli, ["train", "quickstart", "-q"])
    assert (result.exit_code, result.stdout) == (75, "")
    assert result.stderr == "preempted: continue with --resume --run-dir runs/x\n"


def test_the_change_in_meta_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    change = SimpleNamespace(before=0.5, after=0.4, difference=-0.1, low=-0.15, high=-0.05)
    monkeypatch.setattr(api, "train", FakeTrain(change=change))
    result = CliRunner().invoke(cli, ["train", "quickstart"])
    assert result.stdout == "runs/x/artifact\n"
    last = result.stderr.splitlines()[-1]
    assert last == "meta-loss on held-out particles: 0.5 at the start, 0.4 now, change -0.1 [-0.15, -0.05]"


def test_what_validation_decided_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = SimpleNamespace(step=40, kind="average", loss=0.25, low=0.2, high=0.3)
    monkeypatch.setattr(api, "train", FakeTrain(chosen=chosen, ended_early=70))
    result = CliRunner().invoke(cli, ["train", "quickstart"])
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-2:] == [
        "ended early after outer step 70: validation saw no improvement beyond its standard error",
        "validation chose the average theta after outer step 40, loss 0.25 [0.2, 0.3]",
    ]
    assert CliRunner().invoke(cli, ["train", "quickstart", "-q"]).stderr == ""
