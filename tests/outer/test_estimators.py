"""Every estimator through the trainer: the same bytes however its shards are spread over workers, and after an interruption."""

import signal
from pathlib import Path

import pytest

from metaopt.config import load_config
from metaopt.estimators import ESTIMATORS
from metaopt.outer import trainer
from tests.estimators.cases import CASES, OPTIONS
from tests.outer.spread_pool import Spread

SMALL = [
    "tasks=[{family: quadratic, shards: 4, horizon: [4, 7]}]",
    "outer.steps=4",
    "outer.shard_particles=1",
    "outer.optimizer.lr=0.05",
    "checkpoint.every_steps=3",
]


def config_of(name: str, **options: object):
    flow = ", ".join([f"name: {name}", "window: 3", *(f"{key}: {value}" for key, value in options.items())])
    return load_config("learnable_adam", [*SMALL, f"outer.estimator={{{flow}}}"])


def committed(run_dir: Path) -> dict[str, bytes]:
    files = {name: (run_dir / name).read_bytes() for name in ("metrics.jsonl", "artifact/weights.safetensors")}
    newest = sorted((run_dir / "checkpoints").glob("step-*"))[-1]
    return files | {path.name: path.read_bytes() for path in newest.iterdir() if path.name != "manifest.json"}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs, and are none of the bytes."""
    monkeypatch.setattr(trainer, "plot_run", lambda rows, directory: [])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_bytes_on_1_2_and_4_workers_and_after_a_stop(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(name, **OPTIONS[name][-1])

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
def test_estimators_with_tangents_and_graphs_on_ray(tmp_path: Path, ray_session: object) -> None:
    config = config_of("uoro")
    for workers in (0, 2):
        trainer.train(config, tmp_path / str(workers), workers=workers)
    assert committed(tmp_path / "0") == committed(tmp_path / "2")


def test_configs_build_the_recipes_they_name() -> None:
    for case, recipe in CASES.items():
        options = dict(part.split("=") for part in case.split()[1:])
        assert config_of(recipe.name, **options).outer.estimator.recipe == recipe
