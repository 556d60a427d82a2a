"""Training in the real environment, on the smallest of tasks: it runs, is reproduced, and does not care who computed its references."""

from pathlib import Path

import pytest

from metaopt.outer.ppo import trainer
from tests.outer.ppo.toys import committed, toy_config

pytest.importorskip("metaopt_envs", reason="the environments are a package of their own")

TINY = (
    "tasks=[{family: quadratic, horizon: [32, 64], templates: 1}]",
    "outer.steps=3",
    "outer.groups_per_step=2",
    "outer.template_tasks=2",
    "outer.decisions=[2, 4]",
)


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "plot_policy_run", lambda rows, directory: [])


@pytest.mark.slow
@pytest.mark.parametrize("collection", ["lockstep", "async"])
def test_references_from_the_store_give_the_same_bytes_as_fresh_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: str
) -> None:
    config = toy_config(*TINY, f"outer.collection={collection}")
    monkeypatch.setenv("METAOPT_CACHE", str(tmp_path / "cache"))
    for name in ("cold", "warm"):
        run = trainer.train(config, tmp_path / name)
        assert run.quarantined == 0
        assert run.metrics["reward"].between(-3.0, 0.7).all()
        assert (run.metrics["decisions"] >= 16).all()
    assert committed(tmp_path / "cold") == committed(tmp_path / "warm")


@pytest.mark.slow
@pytest.mark.ray
def test_workers_give_the_same_bytes_in_the_real_environment(tmp_path: Path, ray_session: object) -> None:
    config = toy_config(*TINY)
    for workers in (0, 2):
        trainer.train(config, tmp_path / f"run{workers}", workers=workers)
    assert committed(tmp_path / "run0") == committed(tmp_path / "run2")
