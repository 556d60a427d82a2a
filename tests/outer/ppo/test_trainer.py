"""Training of policies: the same bytes for every pool and after every interruption in lock-step, and it learns."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from metaopt.artifacts import load
from metaopt.artifacts.policy import load_policy
from metaopt.errors import ConfigError, DivergedError, IncompatibleCheckpointError
from metaopt.outer.checkpoint import latest
from metaopt.outer.ppo import collect, trainer, worker
from metaopt.outer.ppo.snapshot import PolicySnapshot
from metaopt.outer.ppo.worker import fresh_networks
from tests.outer.ppo.toys import ToyWorld, committed, toy_config

WORLD = ToyWorld(failing=0.1, rejecting=0.2, registers=True)
ROOT = Path(__file__).parents[3]


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def no_plots(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run with plots is enough, they take longer than all the rest of it."""
    monkeypatch.setattr(trainer, "plot_policy_run", lambda rows, directory: [])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    run = trainer.train(toy_config(), run_dir, world=WORLD)
    assert (run.quarantined, run.stopped) == (0, False)
    return run_dir


def test_a_run_leaves_what_it_promises(undisturbed: Path) -> None:
    found = rows(undisturbed)
    assert [row["step"] for row in found] == list(range(1, 9))
    assert all(row["episodes"] == 12 and row["stale"] == row["staleness"] == 0 for row in found)
    assert sum(row["rejected"] for row in found) > 0
    assert sum(row["diverged"] for row in found) > 0
    assert {"kl", "clip_fraction", "explained_variance", "entropy", "entropy_lr", "entropy_registers"} <= set(found[-1])
    assert [path.name for path in sorted((undisturbed / "checkpoints").iterdir())] == ["step-00000003", "step-00000006", "step-00000008"]
    assert {path.name for path in (undisturbed / "plots").iterdir()} == {"reward.png", "entropy.png", "update.png"}
    timing = [json.loads(line) for line in (undisturbed / "timing.jsonl").read_text().splitlines()]
    assert timing[0]["unscored_tasks"] == {}
    assert all(0 < row["update_s"] < row["seconds"] for row in timing[1:])
    assert [row["step"] for row in timing] == list(range(9))
    config = toy_config()
    card = load(str(undisturbed / "artifact")).card
    assert (card["kind"], card["name"], card["limits"]["max_lr"]) == ("policy", "toy", 0.1)
    training = card["training"]
    assert (training["outer_steps"], training["config_hash"]) == (8, config.hash)
    assert training["inner_steps"] == sum(row["inner_steps"] for row in found)
    assert [entry["family"] for entry in training["distribution"]] == ["quadratic", "digits_mlp"]
    assert training["device_hours"] > 0
    assert [score["metric"] for score in card["scores"]] == ["reward_of_sampled_actions"]


def test_the_artifact_is_the_running_mean_of_policies(undisturbed: Path) -> None:
    found = latest(undisturbed / "checkpoints")
    assert found is not None
    state = PolicySnapshot.read(found).ppo
    network = load_policy(str(undisturbed / "artifact"))
    mean = state["average"]["mean"]
    assert state["average"]["count"] == 8
    weights = network.state_dict()
    assert all(torch.equal(weights[name], mean[name]) for name in mean)
    assert not torch.equal(mean["heads.weight"], state["network"]["heads.weight"])
    start = fresh_networks(toy_config(), WORLD)[0].state_dict()
    assert not torch.equal(start["heads.weight"], weights["heads.weight"])
    assert int(weights["normaliser.updates"]) == 8


@pytest.mark.parametrize("stop_after", [1, 4])
def test_stop_and_resume_is_bitwise(undisturbed: Path, tmp_path: Path, stop_after: int) -> None:
    def stop(what: str, done: int, total: int, numbers: object = None) -> None:
        if done == stop_after:
            signal.raise_signal(signal.SIGTERM)

    run_dir = tmp_path / "run"
    stopped = trainer.train(toy_config(), run_dir, progress=stop, world=WORLD)
    assert stopped.stopped
    assert stopped.sentences == ()
    assert not stopped.artifact.exists()
    resumed = trainer.train(toy_config(), run_dir, resume=True, world=WORLD)
    assert not resumed.stopped
    assert "mean reward of sampled actions" in resumed.sentences[0]
    assert committed(run_dir) == committed(undisturbed)


KILLED = """
import sys
from pathlib import Path
from metaopt.outer.ppo import trainer
from tests.outer.ppo.toys import ToyWorld, toy_config
world = ToyWorld(failing=0.1, rejecting=0.2, registers=True)
trainer.train(toy_config(*sys.argv[3:]), Path(sys.argv[1]), workers=int(sys.argv[2]), world=world)
"""


def kill_after(run_dir: Path, steps: int, workers: int, *overrides: str) -> None:
    """Begin a run in a process of its own, and end that with SIGKILL once it has so many rows."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(run_dir), str(workers), *overrides],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics, deadline = run_dir / "metrics.jsonl", time.monotonic() + 180
    while time.monotonic() < deadline and child.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < steps):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert metrics.read_bytes().count(b"\n") >= steps
    assert not (run_dir / "artifact").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "steps"), [(0, 2), pytest.param(2, 4, marks=pytest.mark.ray)])
def test_sigkill_of_the_driver_and_resume_is_bitwise(undisturbed: Path, tmp_path: Path, workers: int, steps: int) -> None:
    run_dir = tmp_path / "run"
    kill_after(run_dir, steps, workers)
    trainer.train(toy_config(), run_dir, resume=True, world=WORLD)
    assert committed(run_dir) == committed(undisturbed)


@pytest.mark.ray
def test_workers_give_the_same_bytes(undisturbed: Path, tmp_path: Path, ray_session: object) -> None:
    trainer.train(toy_config(), tmp_path / "run", workers=2, world=WORLD)
    assert committed(tmp_path / "run") == committed(undisturbed)


@pytest.mark.ray
def test_sigkill_of_a_worker_in_the_middle_of_a_group_changes_nothing(undisturbed: Path, tmp_path: Path, ray_session: object) -> None:
    marker = tmp_path / "killed"
    world = ToyWorld(failing=0.1, rejecting=0.2, registers=True, kill=str(marker))
    run = trainer.train(toy_config(), tmp_path / "run", workers=2, world=world)
    assert marker.exists()
    assert run.quarantined == 0
    assert committed(tmp_path / "run") == committed(undisturbed)


def test_a_group_that_always_fails_is_given_up_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = worker.CollectWorker.handle

    def handle(self: Any, item: Any) -> Any:
        if item.work_id == 1 and item.outer_step == 2:
            raise RuntimeError("planted")
        return honest(self, item)

    monkeypatch.setattr(worker.CollectWorker, "handle", handle)
    run = trainer.train(toy_config(), tmp_path / "run", world=WORLD)
    assert (run.quarantined, run.stopped) == (1, False)
    found = rows(tmp_path / "run")
    assert [row["quarantined"] for row in found] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert [row["episodes"] for row in found] == [12, 12, 8, 12, 12, 12, 12, 12]
    errors = [line for line in (tmp_path / "run/timing.jsonl").read_text().splitlines() if "planted" in line]
    assert len(errors) == 1
    assert json.loads(errors[0])["quarantined"] == "group 1 of outer step 2"
    assert json.loads(errors[0])["error"].count("RuntimeError: planted") == 3


def test_an_error_that_passes_leaves_no_trace(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = worker.CollectWorker.handle

    def handle(self: Any, item: Any) -> Any:
        value = honest(self, item)
        if item.outer_step == 4 and item.attempt == 0:
            raise RuntimeError("after the work was done, before the reply")
        return value

    monkeypatch.setattr(worker.CollectWorker, "handle", handle)
    trainer.train(toy_config(), tmp_path / "run", world=WORLD)
    assert committed(tmp_path / "run") == committed(undisturbed)


def test_spoiled_groups_are_left_out_and_without_any_other_the_run_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {0}
    monkeypatch.setattr(collect.Played, "finite", property(lambda played: hash(played.episodes.version) not in bad))
    run = trainer.train(toy_config("outer.steps=3"), tmp_path / "one", world=WORLD)
    assert [row["spoiled"] for row in rows(tmp_path / "one")] == [3, 0, 0]
    assert [row["skipped"] for row in rows(tmp_path / "one")] == [1, 1, 1]
    assert run.metrics["reward"].isna().tolist() == [True, False, False]
    bad |= set(range(9))
    with pytest.raises(DivergedError, match=r"^no usable update in 2 outer steps in a row \(outer\.max_skipped=1\), 0 groups given up"):
        trainer.train(toy_config("outer.max_skipped=1"), tmp_path / "all", world=WORLD)
    found = latest(tmp_path / "all" / "checkpoints")
    assert found is not None
    assert found.step == 2
    start, kept = fresh_networks(toy_config(), WORLD)[0].state_dict(), PolicySnapshot.read(found).ppo["network"]
    assert all(torch.equal(value, kept[name]) for name, value in start.items())


def test_stages_of_the_curriculum_are_resumed(tmp_path: Path) -> None:
    curriculum = "outer.curriculum=[{families: [quadratic], most_decisions: 2, until_frac: 0.5}, {}]"

    def stop(what: str, done: int, total: int, numbers: object = None) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGTERM)

    trainer.train(toy_config(curriculum), tmp_path / "run", progress=stop, world=WORLD)
    trainer.train(toy_config(curriculum), tmp_path / "run", resume=True, world=WORLD)
    trainer.train(toy_config(curriculum), tmp_path / "whole", world=WORLD)
    found = rows(tmp_path / "whole")
    assert [row["stage"] for row in found] == [0] * 4 + [1] * 4
    assert [sorted(row["families"]) for row in found[:4]] == [["quadratic"]] * 4
    assert any("digits_mlp" in row["families"] for row in found[4:])
    assert all(row["decisions"] <= 24 for row in found[:4])
    assert committed(tmp_path / "run") == committed(tmp_path / "whole")


def test_other_configs_and_full_directories_are_refused(undisturbed: Path) -> None:
    before = committed(undisturbed)
    with pytest.raises(IncompatibleCheckpointError, match="config hash"):
        trainer.train(toy_config("outer.steps=9"), undisturbed, resume=True, world=WORLD)
    with pytest.raises(ConfigError, match="not empty"):
        trainer.train(toy_config(), undisturbed, world=WORLD)
    assert committed(undisturbed) == before


def test_a_new_run_says_what_it_is_and_reports_every_step(tmp_path: Path) -> None:
    said: list[str] = []
    seen: list[tuple[str, int, int]] = []

    def progress(what: str, done: int, total: int, numbers: Any = None) -> None:
        assert list(numbers) == ["reward", "inner steps/s"]
        seen.append((what, done, total))

    trainer.train(toy_config("outer.steps=2"), tmp_path / "run", announce=said.append, progress=progress, world=WORLD)
    assert said == ["2 outer steps of 3 groups, 4 episodes a group"]
    assert seen == [("outer step", 1, 2), ("outer step", 2, 2)]


@pytest.mark.slow
def test_it_learns_what_needs_memory(tmp_path: Path) -> None:
    """Guessing gives 0; remembering the bit of the first decision gives 1."""
    config = toy_config("outer.steps=60", "outer.groups_per_step=8", "outer.ppo.epochs=4", "outer.decisions=[2, 5]")
    trainer.train(config, tmp_path / "run", world=ToyWorld())
    rewards = [row["reward"] for row in rows(tmp_path / "run")]
    assert sum(rewards[:5]) / 5 < 0.4
    assert sum(rewards[-10:]) / 10 > 0.8
