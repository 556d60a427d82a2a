"""The outer loop: the same bytes for every pool and after every interruption, and it learns."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metaopt.artifacts import load
from metaopt.config import load_config
from metaopt.errors import ConfigError, DivergedError, IncompatibleCheckpointError
from metaopt.outer import shards, trainer

SMALL = {
    "tasks.0.horizon": "[12, 40]",
    "tasks.1.horizon": "[12, 40]",
    "tasks.0.shards": "2",
    "tasks.1.shards": "1",
    "outer.steps": "20",
    "outer.shard_particles": "2",
    "outer.shards_per_step": "2",
    "outer.estimator.window": "10",
    "checkpoint.every_steps": "3",
}


def overrides(**changes: int) -> list[str]:
    """`SMALL` with some of its entries (a double underscore for a dot) replaced."""
    return [f"{key}={value}" for key, value in (SMALL | {name.replace("__", "."): value for name, value in changes.items()}).items()]


def small(**changes: int):
    return load_config("quickstart", overrides(**changes))


def committed(run_dir: Path) -> dict[str, bytes]:
    """Everything that must not depend on workers, kills and resumes."""
    files = {"metrics": (run_dir / "metrics.jsonl").read_bytes(), "weights": (run_dir / "artifact/weights.safetensors").read_bytes()}
    newest = sorted((run_dir / "checkpoints").glob("step-*"))[-1]
    return files | {path.name: path.read_bytes() for path in newest.iterdir() if path.name != "manifest.json"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    trainer.train(small(), run_dir)
    return run_dir


@pytest.fixture(autouse=True)
def no_plots(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run with plots is enough: they take longer than the run, and no other test looks at them."""
    monkeypatch.setattr(trainer, "plot_run", lambda rows, directory: [])


def test_a_run_leaves_what_it_promises(undisturbed: Path) -> None:
    rows = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert all(row["inner_steps"] == 2 * 2 * 2 * 10 for row in rows)  # shards x pairs x members x window
    assert [p.name for p in sorted((undisturbed / "checkpoints").iterdir())] == ["step-00000015", "step-00000018", "step-00000020"]
    assert {p.name for p in (undisturbed / "plots").iterdir()} == {"meta_loss.png", "outer_optimizer.png"}
    card = load(str(undisturbed / "artifact")).card
    assert card["training"]["outer_steps"] == 20
    assert card["training"]["inner_steps"] == 20 * 80
    assert card["training"]["config_hash"] == small().hash


def test_theta_moves(undisturbed: Path) -> None:
    config = small()
    start = shards.make_learner(config).init_theta(config.seed)
    end = load(str(undisturbed / "artifact")).weights
    assert set(end) == set(start)
    assert all(not torch.equal(end[name], start[name]) for name in ("w0", "log_step"))


@pytest.mark.parametrize("stop_after", [1, 4, 15])
def test_stop_and_resume_is_bitwise(undisturbed: Path, tmp_path: Path, stop_after: int) -> None:
    def stop(what: str, done: int, total: int, numbers: object = None) -> None:
        if done == stop_after:
            signal.raise_signal(signal.SIGTERM)

    run_dir = tmp_path / "run"
    stopped = trainer.train(small(), run_dir, progress=stop)
    assert stopped.stopped
    assert not stopped.artifact.exists()
    resumed = trainer.train(small(), run_dir, resume=True)
    assert not resumed.stopped
    assert committed(run_dir) == committed(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "delay_steps"), [(0, 2), (0, 11), pytest.param(2, 7, marks=pytest.mark.ray)])
def test_sigkill_and_resume_is_bitwise(undisturbed: Path, tmp_path: Path, workers: int, delay_steps: int) -> None:
    run_dir = tmp_path / "run"
    code = "import sys; from metaopt.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "train", "quickstart", *overrides(), "--run-dir", str(run_dir), "--workers", str(workers)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not metrics.exists() or metrics.read_bytes().count(b"\n") < delay_steps):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert metrics.read_bytes().count(b"\n") >= delay_steps
    assert not (run_dir / "artifact").exists()
    trainer.train(small(), run_dir, workers=workers, resume=True)
    assert committed(run_dir) == committed(undisturbed)


@pytest.mark.ray
@pytest.mark.parametrize("workers", [2, *(pytest.param(workers, marks=pytest.mark.slow) for workers in (1, 4))])
def test_workers_give_the_same_bytes(undisturbed: Path, tmp_path: Path, ray_session: object, workers: int) -> None:
    """Two workers share three shards unevenly; other numbers, without Ray, in `test_estimators` and `test_loop`."""
    trainer.train(small(), tmp_path / "run", workers=workers)
    assert committed(tmp_path / "run") == committed(undisturbed)


def test_resume_refuses_another_config(undisturbed: Path) -> None:
    with pytest.raises(IncompatibleCheckpointError, match="config hash"):
        trainer.train(small(outer__steps=21), undisturbed, resume=True)


def test_a_full_directory_is_refused_without_resume(undisturbed: Path) -> None:
    before = committed(undisturbed)
    with pytest.raises(ConfigError, match="not empty"):
        trainer.train(small(), undisturbed)
    assert committed(undisturbed) == before


def test_nonfinite_gradients_of_one_shard_are_dropped_and_of_all_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = shards.ShardWorker.handle

    def poisoned(bad: set[int]):
        def handle(self, item):
            value = honest(self, item)
            if item.payload.theta is not None and item.work_id in bad:
                value.grad["w0"][0, 0] = float("inf")
            return value

        return handle

    monkeypatch.setattr(shards.ShardWorker, "handle", poisoned({0}))
    run = trainer.train(small(outer__steps=3, outer__shards_per_step=3), tmp_path / "one")
    assert run.metrics["dropped_shards"].tolist() == [1, 1, 1]
    assert run.metrics["skipped"].tolist() == [0, 0, 0]

    monkeypatch.setattr(shards.ShardWorker, "handle", poisoned({0, 1, 2}))
    with pytest.raises(DivergedError, match=r"outer\.max_skipped=1"):
        trainer.train(small(outer__max_skipped=1), tmp_path / "all")
    commits = sorted((tmp_path / "all" / "checkpoints").iterdir())
    assert commits[-1].name == "step-00000002"
    config = small()
    start = shards.make_learner(config).init_theta(config.seed)
    from metaopt.outer.checkpoint import latest
    from metaopt.outer.snapshot import Snapshot

    found = latest(tmp_path / "all" / "checkpoints")
    assert found is not None
    theta = Snapshot.read(found).theta
    assert all(torch.equal(theta[name], start[name]) for name in start)  # no step was applied


def test_a_shard_that_always_fails_is_given_up_and_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = shards.ShardWorker.handle

    def handle(self, item):
        if item.work_id == 1 and item.outer_step >= 2 and item.payload.theta is not None:
            raise RuntimeError("planted")
        return honest(self, item)

    monkeypatch.setattr(shards.ShardWorker, "handle", handle)
    run = trainer.train(small(outer__steps=6), tmp_path / "run")
    assert run.quarantined == 1
    assert not run.stopped
    assert run.artifact.exists()
    assert run.metrics["quarantined"].tolist()[-1] == 1
    errors = [line for line in (tmp_path / "run/timing.jsonl").read_text().splitlines() if "planted" in line]
    assert len(errors) == 1


def test_the_turns_go_on_without_a_shard_that_was_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, seen = shards.ShardWorker.handle, []

    def handle(self, item):
        if item.work_id == 1:
            raise RuntimeError("planted")
        if getattr(item.payload, "theta", None) is not None:  # neither a commit nor a validation
            seen.append(item.work_id)
        return honest(self, item)

    monkeypatch.setattr(shards.ShardWorker, "handle", handle)
    run = trainer.train(small(outer__steps=6, outer__shards_per_step=1), tmp_path / "run")
    assert run.quarantined == 1  # the outer step that would have been its turn alone is one skipped step, not the end
    assert run.metrics["skipped"].tolist() == [0, 1, 1, 1, 1, 1]  # so far
    assert set(seen) == {0, 2}
    assert len(seen) == 5


def test_an_error_in_a_shard_that_passes_leaves_no_trace(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = shards.ShardWorker.handle

    def handle(self, item):
        value = honest(self, item)
        if item.outer_step == 4 and item.attempt == 0:
            raise RuntimeError("after the work was done, before the reply")
        return value

    monkeypatch.setattr(shards.ShardWorker, "handle", handle)
    trainer.train(small(), tmp_path / "run")
    assert committed(tmp_path / "run") == committed(undisturbed)


def test_it_learns(tmp_path: Path) -> None:
    """Forty outer steps of learnable Adam on two shards of quadratics lower the meta-loss on fixed held-out particles."""
    config = load_config(
        "learnable_adam",
        [
            "tasks=[{family: quadratic, shards: 2, horizon: [25, 60]}]",
            "outer.steps=40",
            "outer.shards_per_step=2",
            "outer.optimizer.lr=0.05",
        ],
    )
    run = trainer.train(config, tmp_path / "run")
    assert run.change is not None
    assert run.change.high < -0.03
    scores = load(str(run.artifact)).card["scores"]
    assert [score["metric"] for score in scores] == ["meta_loss_change"]
    assert scores[0]["value"] == run.change.difference


def test_a_new_run_says_what_it_will_take_and_a_resumed_one_does_not(tmp_path: Path) -> None:
    said: list[str] = []
    trainer.train(small(outer__steps=1), tmp_path / "run", announce=said.append)
    trainer.train(small(outer__steps=1), tmp_path / "run", resume=True, announce=said.append)
    assert len(said) == 1
    assert re.fullmatch(r"about \S+ \S+ and \S+ \S+: 1 outer steps? of \S+ \S+ on 1 worker.*", said[0])


def test_a_run_without_shards_says_why_the_last_one_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(self, item):
        raise RuntimeError("planted")

    monkeypatch.setattr(shards.ShardWorker, "handle", handle)
    with pytest.raises(DivergedError, match=r"^all 3 shards were given up, the last one by RuntimeError: planted; see .*timing\.jsonl$"):
        trainer.train(small(outer__steps=6, outer__shards_per_step=3), tmp_path / "run")
