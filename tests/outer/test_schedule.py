"""Meta-training of a schedule: the same bytes for every pool, after a stop, under every kind of estimator; and its artifact."""

import signal
from pathlib import Path

import pytest
import torch

import metaopt
from metaopt.artifacts import load
from metaopt.artifacts.schedule import learned_schedule
from metaopt.config import load_config
from metaopt.errors import ConfigError
from metaopt.outer import trainer
from metaopt.outer.schedule_plot import plot_schedule
from metaopt.outer.shards import check_buildable, make_learner
from tests.outer.spread_pool import Spread

SMALL = {
    "learner.values": 2,
    "tasks": [{"family": "quadratic", "shards": 3, "horizon": [4, 4]}],
    "outer.steps": 4,
    "outer.shard_particles": 1,
    "outer.shards_per_step": None,
    "validation": None,
    "checkpoint.every_steps": 3,
}
# Reverse and forward derivatives of the last loss, forward with random directions, and evolution strategies.
ESTIMATORS = {
    "unrolled": {"name": "full_backprop", "objective": "last"},
    "sharing": {"name": "forward_mode", "window": 4, "tangents": 0, "objective": "last"},
    "nres": {"name": "nres", "window": 2, "sigma": 0.1},
    "pes": {"name": "pes", "window": 2, "sigma": 0.1},
    "full_es": {"name": "full_es", "window": 2, "sigma": 0.1, "objective": "last"},
}


def config_of(estimator: str, **more: object):
    changes = {key.replace("__", "."): value for key, value in more.items()}
    merged = {**SMALL, "outer.estimator": ESTIMATORS[estimator], **changes}
    if "learner" in changes:  # a section and a key inside it would be two settings of one thing
        merged = {key: value for key, value in merged.items() if not key.startswith("learner.")}
    return load_config("schedule", merged)


def committed(run_dir: Path) -> dict[str, bytes]:
    files = {name: (run_dir / name).read_bytes() for name in ("metrics.jsonl", "artifact/weights.safetensors")}
    newest = sorted((run_dir / "checkpoints").glob("step-*"))[-1]
    return files | {path.name: path.read_bytes() for path in newest.iterdir() if path.name != "manifest.json"}


@pytest.fixture(autouse=True)
def no_plots(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run with plots is enough, they take longer than all the rest of it."""
    monkeypatch.setattr(trainer, "plot_run", lambda rows, directory: [])
    monkeypatch.setattr(trainer, "plot_schedule", lambda *args: None)


def test_the_same_bytes_on_1_2_and_4_workers_and_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("unrolled")  # the others: tests/outer/test_estimators.py

    def run(workers: int, **options: object) -> dict[str, bytes]:
        monkeypatch.setattr(trainer, "make_pool", lambda count, address, setup, *rest: Spread(setup, workers))
        stopped = trainer.train(config, tmp_path / str(workers), **options).stopped
        return {} if stopped else committed(tmp_path / str(workers))

    def stop(what: str, done: int, total: int, numbers: object = None) -> None:
        if what == "outer step" and done == 2:
            signal.raise_signal(signal.SIGTERM)

    alone, spread = run(1), run(4)
    assert not run(2, progress=stop)
    assert alone == spread == run(2, resume=True)
    assert len(alone["metrics.jsonl"].splitlines()) == 4


@pytest.mark.slow
@pytest.mark.ray
def test_the_same_bytes_on_ray(tmp_path: Path, ray_session: object) -> None:
    for workers in (0, 2):
        trainer.train(config_of("unrolled"), tmp_path / str(workers), workers=workers)
    assert committed(tmp_path / "0") == committed(tmp_path / "2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    trainer.train(config_of("unrolled", learner__shape="constant"), folder)
    return folder


@pytest.mark.parametrize("estimator", ["sharing", "nres", "pes", "full_es"])
def test_every_kind_of_estimator_moves_every_schedule(estimator: str, tmp_path: Path) -> None:
    config = config_of(estimator, outer__steps=2, tasks=[{"family": "quadratic", "horizon": [4, 4]}])
    theta = load(trainer.train(config, tmp_path / "run").artifact).weights
    start = make_learner(config_of(estimator)).init_theta(0)
    assert theta.keys() == start.keys()
    assert all(not torch.equal(theta[name], start[name]) for name in start)


def test_the_card_says_what_it_is(trained: Path) -> None:
    artifact = load(trained / "artifact")
    card = artifact.card
    assert (card["kind"], card["interface"], card["features"]) == ("hypergradient", "learned_schedule/1", [])
    assert card["step"] == {"base_lr": 1.0, "default_schedule": None}
    assert card["limits"] == {"needs_total_steps": True}
    assert card["training"]["support"]["horizon"] == [4, 4]
    config = config_of("unrolled", learner__shape="constant")
    learner, theta = learned_schedule(artifact)
    assert learner == make_learner(config)
    assert (card["rule"]["name"], card["training"]["config_hash"]) == ("adamw", config.hash)
    assert {name: tuple(value.shape) for name, value in theta.items()} == {"lr": (2,), "beta1": (2,), "weight_decay": (2,)}


def test_it_runs_in_pytorch(trained: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    scheduler = metaopt.optim.LearnedSchedule(optimizer, trained / "artifact", total_steps=6)
    first = optimizer.param_groups[0]["lr"]
    weight.grad = torch.ones(3)
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    assert first != optimizer.param_groups[0]["lr"] != 0.1


def test_the_schedule_is_drawn(trained: Path, tmp_path: Path) -> None:
    assert (trained / "plots" / "schedule.png").stat().st_size > 5000
    for shape in ("linear", "constant"):
        learner = make_learner(config_of("unrolled", learner__shape=shape, learner__learn=["lr"]))
        assert plot_schedule(learner, learner.init_theta(0), tmp_path / shape).read_bytes()[:4] == b"\x89PNG"


def test_higher_cannot_run_schedules() -> None:
    momentum = {"kind": "schedule", "rule": "momentum", "values": 2}
    config = config_of("unrolled", learner=momentum, outer__estimator={"name": "full_backprop", "backend": "higher"})
    with pytest.raises(ConfigError, match="backend higher runs the rules sgd, momentum, adam, got 'ScheduledLearner'; use backend own"):
        check_buildable(config, "cpu")


def test_it_learns(tmp_path: Path) -> None:
    bowls = [{"family": "quadratic", "shards": 2, "horizon": [12, 12]}]
    lesson = {"learner__lr": 0.02, "outer__steps": 8, "outer__shard_particles": 2, "outer__optimizer__lr": 0.4}
    run = trainer.train(config_of("unrolled", tasks=bowls, **lesson), tmp_path / "run")
    assert run.change is not None
    assert run.change.high < -0.1, "steps of 0.02 take none of the way in twelve steps"
