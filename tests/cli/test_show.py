"""`metaopt show` on a run directory, finished or not, and on an artifact."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from metaopt.artifacts import Artifact, new_card
from metaopt.cli.main import cli
from metaopt.config import load_config
from metaopt.learners.hypergradients.schedule import scheduled_learner


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("run")
    (path / "plots").mkdir(parents=True)
    (path / "plots" / "loss.png").write_bytes(b"")
    for step in (5, 10):
        (path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    (path / "config.yaml").write_text(load_config("quickstart", ["outer.steps=40"]).to_yaml())
    lines = [json.dumps({"step": i, "loss": 1.0 / i, "families": {"a": 1}}) for i in range(1, 31)]
    (path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 31, "lo')
    return path


def test_run_shows_progress_last_commit_and_plots(run: Path) -> None:
    text = CliRunner().invoke(cli, ["show", "run"]).stdout
    pairs = dict(line.split(maxsplit=1) for line in text.split("\n\n")[0].splitlines())
    assert pairs == {
        "run": "run",
        "config": "quickstart",
        "seed": "0",
        "outer_steps": "30 of 40",
        "last_commit": "step-00000010",
        "artifact": "none yet",
        "plots": '["run/plots/loss.png"]',
    }
    table = [line.split() for line in text.split("\n\n")[1].splitlines()]
    assert table[0][:2] == ["step", "loss"]
    assert (table[1], table[-1]) == (["1", "1"], ["30", "0.03333"])
    assert len(table) == 13


def test_run_as_json_has_every_complete_row(run: Path) -> None:
    shown = json.loads(CliRunner().invoke(cli, ["show", "run", "--json"]).stdout)
    assert [row["step"] for row in shown["metrics"]] == list(range(1, 31))
    assert shown["plots"] == ["run/plots/loss.png"]


def test_validations_have_a_table_of_their_own(run: Path) -> None:
    numbers = {"kind": "last", "loss": 0.5, "loss_se": 0.01, "best_step": 5, "waiting": 1, "templates": {"a/b": 0.5}}
    with open(run / "metrics.jsonl", "w") as file:
        for step in range(1, 31):
            file.write(json.dumps({"step": step, "loss": 1.0 / step, "families": {"a": 1}}) + "\n")
            if step % 5 == 0:
                file.write(json.dumps({"step": step, "validation": numbers}) + "\n")
    text = CliRunner().invoke(cli, ["show", "run"]).stdout
    assert "30 of 40" in text
    steps, validations = ([line.split() for line in part.splitlines()] for part in text.split("\n\n")[1:])
    assert (len(steps), len(validations)) == (13, 7)
    assert validations[0][:3] == ["step", "kind", "loss"]
    assert validations[-1][:3] == ["30", "last", "0.5"]
    shown = json.loads(CliRunner().invoke(cli, ["show", "run", "--json"]).stdout)
    assert [row["step"] for row in shown["validations"]] == [5, 10, 15, 20, 25, 30]
    assert len(shown["metrics"]) == 30


def test_run_that_has_not_begun(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    result = CliRunner().invoke(cli, ["show", "run"])
    assert result.exit_code == 0
    assert "0 of 40" in result.stdout


def test_damaged_metrics_are_named(run: Path) -> None:
    (run / "metrics.jsonl").write_text("{}\nnonsense\n")
    result = CliRunner().invoke(cli, ["show", "run"])
    assert result.exit_code == 2
    assert result.stderr.startswith("metaopt: 'run/metrics.jsonl' is damaged: ")


def test_artifact_shows_its_card(tmp_path: Path) -> None:
    path = Artifact(new_card("mine", "learnable_adam"), {"log_lr": torch.tensor(-7.0)}).save(tmp_path / "mine")
    runner = CliRunner()
    shown = dict(line.split(maxsplit=1) for line in runner.invoke(cli, ["show", str(path)]).stdout.splitlines())
    assert (shown["name"], shown["rule.name"], shown["step.base_lr"]) == ("mine", "learnable_adam", "1.0")
    assert json.loads(runner.invoke(cli, ["show", str(path), "--json"]).stdout)["name"] == "mine"


def test_a_long_list_shows_its_beginning_and_its_length(tmp_path: Path) -> None:
    names = [f"input{i}" for i in range(161)]
    path = Artifact(new_card("mine", "learnable_adam", features=names), {"log_lr": torch.tensor(-7.0)}).save(tmp_path / "mine")
    runner = CliRunner()
    (line,) = (line for line in runner.invoke(cli, ["show", str(path)]).stdout.splitlines() if line.startswith("features"))
    assert line.endswith('"input7", ... 161 in all]')
    assert json.loads(runner.invoke(cli, ["show", str(path), "--json"]).stdout)["features"] == names


@pytest.mark.parametrize(("shape", "places"), [("linear", [0.0, 0.5, 1.0]), ("constant", [0.0, 1 / 3, 2 / 3])])
def test_learned_schedule_shows_its_values(shape: str, places: list[float], tmp_path: Path) -> None:
    options = {"learn": ["lr", "beta1"], "values": 3, "shape": shape, "lr": 0.01}
    theta = scheduled_learner("adamw", **options).init_theta(0)
    theta["lr"] += torch.tensor([0.0, 2.302585, -2.302585])
    card = new_card("mine", "adamw", options=options, kind="hypergradient", interface="learned_schedule/1")
    path = Artifact(card, theta).save(tmp_path / "mine")
    text = CliRunner().invoke(cli, ["show", str(path)]).stdout
    card_text, table = text.split("\n\n")
    assert "interface" in card_text
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["of", "horizon", "lr", "beta1", "log", "lr"]
    assert [line[1:3] for line in lines[1:]] == [["0.01", "0.9"], ["0.1", "0.9"], ["0.001", "0.9"]]
    assert [len(line[3]) for line in lines[1:]] == [13, 25, 1]
    assert "log lr" not in CliRunner().invoke(cli, ["show", str(path), "-q"]).stdout
    rows = json.loads(CliRunner().invoke(cli, ["show", str(path), "--json"]).stdout)["schedule"]
    assert [row["of horizon"] for row in rows] == pytest.approx(places)
    assert [row["lr"] for row in rows] == pytest.approx([0.01, 0.1, 0.001], rel=1e-5)


def test_a_constant_schedule_has_short_bars(tmp_path: Path) -> None:
    options = {"values": 2, "lr": 0.01}
    card = new_card("mine", "sgd", options=options, kind="hypergradient", interface="learned_schedule/1")
    path = Artifact(card, scheduled_learner("sgd", **options).init_theta(0)).save(tmp_path / "mine")
    table = CliRunner().invoke(cli, ["show", str(path)]).stdout.split("\n\n")[1]
    assert [line.split()[2] for line in table.splitlines()[1:]] == ["#", "#"]
