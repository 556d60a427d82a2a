"""Phases, curriculum, average and validation in whole runs: what they promise, and the same bytes after stops and for every pool."""

import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metaopt.artifacts import load
from metaopt.config import Config, load_config
from metaopt.outer import checkpoint, loop, shards, trainer
from metaopt.outer.snapshot import Snapshot
from metaopt.outer.validation import report_jobs
from tests.outer.spread_pool import Spread

EVERYTHING = {
    "tasks": "[{family: quadratic, shards: 3, horizon: [6, 20]}]",
    "outer.steps": "12",
    "outer.shard_particles": "2",
    "outer.shards_per_step": "2",
    "outer.estimator.window": "5",
    "outer.optimizer.weight_decay": "0.1",
    "outer.phases": "[{share: 2, train: ['w*', 'b*']}, {share: 1, train: [log_step], lr: 0.01, horizon: [5, 10]}]",
    "outer.curriculum": "[{from_frac: 0, horizon_frac: 0.4, template_frac: 0.5}, {from_frac: 0.35}]",
    "outer.average": "{decay: 0.9, start_frac: 0.2}",
    "validation": "{every_steps: 3, particles: 2, horizon: 8}",
    "checkpoint.every_steps": "2",
}
STEPS, PHASE_BORDER, STAGE_BORDER, VALIDATION = 12, 8, 5, 6


def config(**changes: str) -> Config:
    """`EVERYTHING` with some of its entries (a double underscore for a dot) replaced, or left out by None."""
    settings = EVERYTHING | {name.replace("__", "."): value for name, value in changes.items()}
    return load_config("quickstart", [f"{key}={value}" for key, value in settings.items() if value is not None])


def committed(run_dir: Path) -> dict[str, bytes]:
    """Everything that must not depend on workers, kills and resumes."""
    files = {"metrics": (run_dir / "metrics.jsonl").read_bytes(), "weights": (run_dir / "artifact/weights.safetensors").read_bytes()}
    for commit in sorted((run_dir / "checkpoints").glob("step-*")):
        files |= {f"{commit.name}/{path.name}": path.read_bytes() for path in commit.iterdir() if path.name != "manifest.json"}
    return files


def rows(run_dir: Path) -> tuple[list[dict], list[dict]]:
    """The rows of outer steps, and those of validations."""
    written = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in written if "validation" not in row], [row for row in written if "validation" in row]


def snapshots(monkeypatch: pytest.MonkeyPatch) -> dict[int, Snapshot]:
    """Every snapshot that is committed from now on, by step."""
    seen: dict[int, Snapshot] = {}
    real = Snapshot.files

    def files(self: Snapshot, config: Config) -> dict[str, bytes]:
        seen[self.step] = self
        return real(self, config)

    monkeypatch.setattr(Snapshot, "files", files)
    return seen


@pytest.fixture(scope="module", autouse=True)
def no_plots() -> Iterator[None]:
    """They take as long as the run, and `test_plots` and `test_trainer` draw them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "plot_run", lambda rows, directory: [])
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    trainer.train(config(), run_dir)
    return run_dir


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], *names: str) -> list[bool]:
    return [torch.equal(a[name], b[name]) for name in names]


def test_a_phase_changes_what_it_trains_and_no_bit_of_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = snapshots(monkeypatch)
    ours = config(checkpoint__every_steps="1", outer__average="null", validation="null")
    trainer.train(ours, tmp_path / "run")
    thetas = {step: snapshot.theta for step, snapshot in seen.items()} | {0: shards.make_learner(ours).init_theta(0)}
    weights = ("w0", "b0", "w1", "b1", "w2", "b2")
    for step in range(1, STEPS + 1):
        first = step <= PHASE_BORDER
        assert list(thetas[step]) == list(thetas[0])
        assert equal(thetas[step], thetas[step - 1], "log_step") == [first]
        assert all(equal(thetas[step], thetas[step - 1], *weights)) is not first
    assert seen[1].outer["optimizer"]["state"][0]["exp_avg"].numel() == sum(thetas[0][name].numel() for name in weights)
    # Nothing is kept for what is frozen: no state of the optimizer, and by PES no noise of the running episodes.
    count = thetas[0]["log_step"].numel()
    assert seen[STEPS].outer["optimizer"]["state"][0]["exp_avg"].numel() == count
    state = next(state for state in seen[STEPS].shards if state is not None)
    assert state["accumulated"].shape == (2, count)


def test_each_phase_warms_up_to_its_own_step_size(undisturbed: Path) -> None:
    steps, _ = rows(undisturbed)
    assert [row["phase"] for row in steps] == [0] * PHASE_BORDER + [1] * (STEPS - PHASE_BORDER)
    lr = [row["lr"] for row in steps]
    assert lr[0] == pytest.approx(0.003 / 10)  # quickstart warms up over 10 steps
    assert lr[PHASE_BORDER] == pytest.approx(0.01 / 10)


def test_the_curriculum_says_which_shards_work_and_how_long_runs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    honest = shards.ShardWorker.handle

    def handle(self, item):
        if isinstance(item.payload, shards.ShardWork) and item.payload.theta is not None:
            seen.append((item.outer_step, item.work_id))
        return honest(self, item)

    monkeypatch.setattr(shards.ShardWorker, "handle", handle)
    kept = snapshots(monkeypatch)
    changes = {"outer__phases": None, "outer__shards_per_step": "null", "checkpoint__every_steps": "1", "validation": "null"}
    run = trainer.train(config(**changes), tmp_path / "run")
    assert run.metrics["stage"].tolist() == [0] * STAGE_BORDER + [1] * (STEPS - STAGE_BORDER)
    early, late = ({shard for step, shard in seen if (step < STAGE_BORDER) == flag} for flag in (True, False))
    assert early < late == {0, 1, 2}
    lengths = [max(state["pairs"]["length"]) for state in kept[STAGE_BORDER].shards if state is not None]
    assert max(lengths) <= 8  # 0.4 of 20
    assert max(max(state["pairs"]["length"]) for state in kept[STEPS].shards if state is not None) > 8
    assert {stage for state in kept[STEPS].shards if state is not None for stage in state["pairs"]["stage"]} <= {0, 1}


def test_the_average_is_of_the_thetas_since_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = snapshots(monkeypatch)
    changes = {"outer__phases": None, "validation": "null", "checkpoint__every_steps": "1", "outer__average": "{decay: 1, start_frac: 0.5}"}
    trainer.train(config(**changes), tmp_path / "run")
    tail = [seen[step].theta for step in range(7, 13)]
    exported = load(str(tmp_path / "run/artifact")).weights
    for name in exported:
        torch.testing.assert_close(exported[name], torch.stack([theta[name] for theta in tail]).mean(0), rtol=1e-5, atol=1e-7)
    assert seen[6].average["count"] == 0


def test_the_average_changes_nothing_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase has a mean of its own, and starts from the last theta of the one before."""
    seen = snapshots(monkeypatch)
    trainer.train(config(validation="null", checkpoint__every_steps="1"), tmp_path / "with")
    theta, count = {step: s.theta for step, s in seen.items()}, {step: s.average["count"] for step, s in seen.items()}
    trainer.train(config(validation="null", checkpoint__every_steps="1", outer__average="null"), tmp_path / "without")
    assert all(all(equal(theta[step], seen[step].theta, *theta[step])) for step in range(1, STEPS + 1))
    assert count[PHASE_BORDER] == PHASE_BORDER - 2  # from 0.2 of 8 steps on
    assert [count[PHASE_BORDER + i] for i in range(1, 5)] == [0, 1, 2, 3]


def test_validation_rows_and_what_is_exported(undisturbed: Path) -> None:
    _, validations = rows(undisturbed)
    assert [row["step"] for row in validations] == [0, 3, 6, 9, 12]
    best = min(validations, key=lambda row: row["validation"]["loss"])
    assert validations[-1]["validation"]["best_step"] == best["step"]
    assert all(row["validation"]["given_up"] == 0 for row in validations)
    for row in (row["validation"] for row in validations):
        assert row["loss"] == min(row["last_loss"], row["average_loss"]) == row[f"{row['kind']}_loss"]
    first = validations[0]["validation"]
    assert first["last_loss"] == pytest.approx(first["average_loss"], rel=1e-5)  # there is no average yet
    assert len({row["validation"]["last_loss"] for row in validations}) == 5
    card = load(str(undisturbed / "artifact")).card
    change, chosen = card["scores"]
    assert (change["metric"], chosen["metric"]) == ("meta_loss_change", "heldout_loss_of_selection")
    assert (chosen["outer_step"], chosen["value"], chosen["theta"]) == (
        best["step"],
        *(best["validation"][key] for key in ("loss", "kind")),
    )
    assert chosen["low"] < chosen["value"] < chosen["high"]
    assert "other particles" in chosen["note"]


def test_the_artifact_is_the_best_theta_and_its_commit_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = snapshots(monkeypatch)
    run = trainer.train(config(outer__average="null", checkpoint__keep_last="1", outer__optimizer__lr="0.03"), tmp_path / "run")
    assert run.chosen is not None
    assert all(torch.equal(value, seen[run.chosen.step].theta[name]) for name, value in load(str(run.artifact)).weights.items())
    manifests = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "run").glob("checkpoints/*/manifest.json")}
    kept = manifests[f"step-{run.chosen.step:08d}"]
    assert kept["score"] == run.chosen.loss
    assert kept["score"] == min(manifest["score"] for manifest in manifests.values() if manifest["score"] is not None)
    assert run.validations["loss"].min() == run.chosen.loss
    assert len(run.metrics) == STEPS


def test_the_change_is_measured_on_what_is_exported_with_other_particles(tmp_path: Path) -> None:
    """The first of equals is the best: a run that does not move exports its start, and says that nothing changed."""
    run = trainer.train(config(outer__optimizer__lr="0", outer__phases=None, outer__average="null"), tmp_path / "run")
    assert run.chosen is not None
    assert run.chosen.step == 0
    assert run.change is not None
    assert run.change.difference == pytest.approx(0, abs=1e-6)
    assert run.change.before != run.chosen.loss


def test_the_end_of_patience_ends_the_run_with_an_artifact_and_a_resume_does_not_go_on(tmp_path: Path) -> None:
    ours = config(outer__optimizer__lr="3", outer__phases=None, validation="{every_steps: 2, particles: 2, horizon: 8, patience: 2}")
    run = trainer.train(ours, tmp_path / "run")
    steps, validations = rows(tmp_path / "run")
    assert run.ended_early == len(steps) == validations[-1]["step"]
    assert run.ended_early < STEPS
    assert [row["validation"]["waiting"] for row in validations][-3:] == [0, 1, 2]
    assert not run.stopped
    assert load(str(run.artifact)).card["training"]["outer_steps"] == run.ended_early
    before = committed(tmp_path / "run")
    again = trainer.train(ours, tmp_path / "run", resume=True)
    assert again.ended_early == run.ended_early
    assert committed(tmp_path / "run") == before


@pytest.mark.parametrize("stop_after", [STAGE_BORDER, PHASE_BORDER, PHASE_BORDER + 1])
def test_stop_and_resume_is_bitwise(undisturbed: Path, tmp_path: Path, stop_after: int) -> None:
    def stop(what: str, done: int, total: int, numbers: object = None) -> None:
        if done == stop_after:
            signal.raise_signal(signal.SIGTERM)

    run_dir = tmp_path / "run"
    assert trainer.train(config(), run_dir, progress=stop).stopped
    assert not trainer.train(config(), run_dir, resume=True).stopped
    assert committed(run_dir).keys() >= committed(undisturbed).keys()
    got = committed(run_dir)
    assert {name: got[name] for name in committed(undisturbed)} == committed(undisturbed)


def test_a_stop_leaves_validation_to_the_resumed_run(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preemption notice gives seconds: the validation that is due is made when the run goes on."""
    honest = loop.Loop.advance

    def advance(self):
        row = honest(self)
        if self.step == VALIDATION:
            signal.raise_signal(signal.SIGTERM)
        return row

    monkeypatch.setattr(loop.Loop, "advance", advance)
    assert trainer.train(config(), tmp_path / "run").stopped
    assert [row["step"] for row in rows(tmp_path / "run")[1]] == [0, 3]
    monkeypatch.undo()
    trainer.train(config(), tmp_path / "run", resume=True)
    got = committed(tmp_path / "run")
    assert {name: got[name] for name in committed(undisturbed)} == committed(undisturbed)


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("step", [3, VALIDATION, PHASE_BORDER + 1])
def test_killed_before_a_commit_and_resumed_is_bitwise(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Rows of the validation and of the outer steps since the last commit are there, and are made again."""
    honest = checkpoint.save

    def save(directory, done, *rest):
        if done == step:
            raise Killed
        return honest(directory, done, *rest)

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(Killed):
        trainer.train(config(), tmp_path / "run")
    assert rows(tmp_path / "run")[1][-1]["step"] == step
    monkeypatch.undo()
    trainer.train(config(), tmp_path / "run", resume=True)
    assert committed(tmp_path / "run") == committed(undisturbed)


def test_work_that_fails_once_leaves_no_trace(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are rebuilt in the right phase and stage, and validation is measured again."""
    honest = shards.ShardWorker.handle

    def handle(self, item):
        value = honest(self, item)
        if item.outer_step in (3, STAGE_BORDER, VALIDATION, PHASE_BORDER, PHASE_BORDER + 2) and item.attempt == 0:
            raise RuntimeError("after the work was done, before the reply")
        return value

    monkeypatch.setattr(shards.ShardWorker, "handle", handle)
    trainer.train(config(), tmp_path / "run")
    assert committed(tmp_path / "run") == committed(undisturbed)


def test_a_validation_template_that_always_fails_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, tried = shards.measure, []

    def measure(learner, thetas, job, device):
        if job.draws != reported.draws and job.template == reported.template:
            tried.append(job)
            raise RuntimeError("planted")
        return honest(learner, thetas, job, device)

    reported = report_jobs(config())[0]
    monkeypatch.setattr(shards, "measure", measure)
    run = trainer.train(config(), tmp_path / "run")
    assert len(tried) == 3  # attempts of the first validation, and never again
    assert run.quarantined == 1
    assert run.validations["given_up"].tolist() == [1] * 5
    assert run.chosen is not None
    assert math.isfinite(run.chosen.loss)
    assert run.change is not None
    assert math.isfinite(run.change.difference)


def test_a_template_of_the_report_that_fails_is_counted_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = shards.measure

    def measure(learner, thetas, job, device):
        if job.template == reported[0].template:
            raise RuntimeError("planted")
        return honest(learner, thetas, job, device)

    ours = config(outer__phases=None, outer__curriculum=None, outer__average=None, validation=None, outer__steps="2")
    reported = report_jobs(ours)
    monkeypatch.setattr(shards, "measure", measure)
    run = trainer.train(ours, tmp_path / "run")
    assert run.quarantined == 1
    assert run.change is not None
    assert math.isfinite(run.change.difference)
    assert "validation on " + reported[0].name in (tmp_path / "run/timing.jsonl").read_text()


def test_a_checkpoint_of_schema_1_goes_on(tmp_path: Path) -> None:
    """Older checkpoints have no average, no selection, and no stages in the states of shards."""
    ours = config(outer__phases=None, outer__curriculum=None, outer__average=None, validation=None)
    trainer.train(ours, tmp_path / "new")
    run_dir = tmp_path / "old"

    def stop(what: str, done: int, total: int, numbers: object = None) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGTERM)

    trainer.train(ours, run_dir, progress=stop)
    _as_schema_1(run_dir / "checkpoints", ours)
    trainer.train(ours, run_dir, resume=True)
    newest = "step-00000012/"
    assert all(committed(run_dir)[name] == data for name, data in committed(tmp_path / "new").items() if name.startswith(newest))
    assert committed(run_dir)["metrics"] == committed(tmp_path / "new")["metrics"]


def _as_schema_1(directory: Path, ours: Config) -> None:
    """Write the newest checkpoint again as the first schema had it."""
    from metaopt.outer.blobs import from_blob, to_blob

    found = checkpoint.latest(directory)
    assert found is not None
    files = {name: found.read(name) for name in found.names}
    for name in list(files):
        if name.startswith("particles-"):
            state = from_blob(files[name])
            del state["pairs"]["stage"]
            files[name] = to_blob(state)
    assert not {"average.safetensors", "selection.safetensors"} & files.keys()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "SCHEMA", 1)
        checkpoint.save(directory, found.step, files, checkpoint.Meta(ours.hash, found.manifest["versions"]))
    again = checkpoint.latest(directory)
    assert again is not None
    assert again.manifest["schema"] == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
def test_a_frozen_part_can_be_compiled(tmp_path: Path) -> None:
    changes = [
        "outer.phases=[{train: [log_lr]}, {train: ['log_one*']}]",
        "outer.steps=4",
        "outer.shards_per_step=1",
        "outer.estimator.window=5",
    ]
    for compiled in ("false", "true"):
        one = ["tasks=[{family: quadratic, shards: 1, horizon: [6, 20]}]", "outer.shard_particles=2", f"compile={compiled}", *changes]
        trainer.train(load_config("learnable_adam", one), tmp_path / compiled)
    eager, step = ([row["loss"] for row in rows(tmp_path / compiled)[0]] for compiled in ("false", "true"))
    assert step == pytest.approx(eager, rel=1e-4)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_equal_bytes(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(trainer, "make_pool", lambda count, address, setup, *rest: Spread(setup, workers))
    trainer.train(config(), tmp_path / "run", workers=workers)
    assert committed(tmp_path / "run") == committed(undisturbed)


@pytest.mark.ray
def test_ray_gives_the_same_bytes(undisturbed: Path, tmp_path: Path, ray_session: object) -> None:
    trainer.train(config(), tmp_path / "run", workers=2)
    assert committed(tmp_path / "run") == committed(undisturbed)


def test_costs_are_kept_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured once: a resumed run shares the time as it began to."""
    two = "[{family: quadratic, shards: 2, horizon: [6, 20]}, {family: digits_mlp, shards: 2, horizon: [6, 20]}]"
    plain = {"outer__phases": None, "outer__curriculum": None, "outer__average": None, "validation": None, "outer__shards_per_step": "1"}
    ours = config(tasks=two, outer__mixing="equal_time", outer__steps="8", **plain)
    measured = iter([{"quadratic": 0, "digits_mlp": 4}])
    monkeypatch.setattr(trainer, "measured_costs", lambda config, device: next(measured))
    monkeypatch.setattr(loop, "report_jobs", lambda config: ())
    seen = snapshots(monkeypatch)

    def stop(what: str, done: int, total: int, numbers: object = None) -> None:
        if done == 3:
            signal.raise_signal(signal.SIGTERM)

    trainer.train(ours, tmp_path / "run", progress=stop)
    run = trainer.train(ours, tmp_path / "run", resume=True)
    assert seen[8].costs == {"quadratic": 0, "digits_mlp": 4}
    chosen = ["digits_mlp" in row for row in run.metrics["families"]]
    assert sum(chosen) == 2  # a quarter of the steps, for they take four times as long
