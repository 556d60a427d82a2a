"""`metaopt train`, `show` and `list` on policies: the words and exit statuses of other learners. A toy stands for the environment."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import metaopt
from metaopt.cli.main import cli
from metaopt.errors import ConfigError
from metaopt.outer.ppo import loop, trainer, worker
from tests.outer.ppo.toys import TOY, ToyWorld


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)
    monkeypatch.setattr(trainer, "ControlWorld", lambda config: ToyWorld(runs=config.outer.group_runs))
    monkeypatch.setattr(trainer, "plot_policy_run", lambda rows, directory: [])


def train(*words: str) -> Result:
    return CliRunner().invoke(cli, ["train", "toy.yaml", "--run-dir", "run", *words])


def test_a_run_ends_with_its_artifact_and_can_be_shown() -> None:
    result = train("outer.steps=3")
    assert (result.exit_code, result.stdout) == (0, "run/artifact\n")
    lines = result.stderr.splitlines()
    assert lines[0] == "expected: 3 outer steps of 3 groups, 4 episodes a group"
    assert lines[-1].startswith("mean reward of sampled actions on training tasks, last tenth of the run: ")
    shown = CliRunner().invoke(cli, ["show", "run"]).stdout
    assert "outer_steps  3 of 3" in shown
    assert shown.split("\n\n")[1].splitlines()[0].split()[:5] == ["step", "reward", "reward_se", "entropy", "kl"]
    card = json.loads(CliRunner().invoke(cli, ["show", "run/artifact", "--json"]).stdout)
    assert card["kind"] == "policy"


def test_quiet_prints_the_result_only() -> None:
    result = train("outer.steps=1", "-q")
    assert (result.stdout, result.stderr) == ("run/artifact\n", "")


def test_a_signal_is_status_75_and_resume_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = loop.PolicyLoop.advance

    def advance(self: Any) -> Any:
        row = honest(self)
        if row["step"] == 2:
            signal.raise_signal(signal.SIGTERM)
        return row

    with monkeypatch.context() as patch:
        patch.setattr(loop.PolicyLoop, "advance", advance)
        result = train("outer.steps=4", "-q")
    assert (result.exit_code, result.stdout) == (75, "")
    assert result.stderr == "preempted: continue with --resume --run-dir run\n"
    again = train("outer.steps=4", "-q")
    assert again.exit_code == 2
    assert "is not empty; continue it with --resume" in again.stderr
    result = train("outer.steps=4", "-q", "--resume")
    assert (result.exit_code, result.stdout) == (0, "run/artifact\n")


def test_quarantined_groups_are_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = worker.CollectWorker.handle

    def handle(self: Any, item: Any) -> Any:
        if item.work_id == 0 and item.outer_step == 0:
            raise RuntimeError("planted")
        return honest(self, item)

    monkeypatch.setattr(worker.CollectWorker, "handle", handle)
    result = train("outer.steps=2", "-q")
    assert (result.exit_code, result.stdout) == (3, "run/artifact\n")
    assert result.stderr.splitlines()[-1] == "1 work items were quarantined, see run/timing.jsonl"


def test_a_run_without_any_usable_update_is_status_4(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(self: Any, item: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(worker.CollectWorker, "handle", handle)
    result = train("outer.steps=5", "outer.max_skipped=1", "-q")
    assert result.exit_code == 4
    said = result.stderr.splitlines()[-1]
    assert said.startswith("metaopt: no usable update in 2 outer steps in a row (outer.max_skipped=1), 6 groups given up, the last one by ")
    assert said.endswith("RuntimeError: planted; see run/timing.jsonl")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("outer.ppo.epoch=3", "unknown key outer.ppo.epoch; did you mean outer.ppo.epochs? (override outer.ppo.epoch=3)"),
        ("learner.kind=polcy", "learner.kind must be one of schedule, policy, got 'polcy'; did you mean policy? (override"),
        ("outer.group_runs=1000000000", "outer.group_runs = 1000000000 runs in 3 groups of up to 5 decisions need about "),
    ],
)
def test_bad_input_is_status_2_and_writes_nothing(word: str, message: str) -> None:
    result = train(word)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"metaopt: {message}"), result.stderr
    assert not Path("run").exists()


def test_the_front_door_takes_loaded_configs() -> None:
    config = metaopt.config.load_config("toy.yaml", ["outer.steps=1"])
    run = metaopt.train(config, run_dir="run")
    assert run.artifact == Path("run/artifact")
    with pytest.raises(ConfigError, match="overrides and seed need a config's name or path"):
        metaopt.train(config, seed=3, run_dir="other")


def test_bundled_policies_are_listed() -> None:
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(cli, ["list", "configs", "--json"]).stdout)}
    assert (rows["policy_small"]["rule"], rows["quickstart"]["rule"]) == ("policy", "celo2_base")
