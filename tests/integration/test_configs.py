"""Every bundled config runs: one outer step of few particles on short runs, validation included."""

from pathlib import Path

import pytest

import metaopt
from metaopt.config import Config, PolicyConfig, bundled_configs, load_config

STEPS = 10  # of a run, and of a window where those of the config are longer
CONFIGS = {name: load_config(name) for name in sorted(bundled_configs())}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take as long as the step, and a config has no say in them."""
    monkeypatch.setattr("metaopt.outer.trainer.plot_run", lambda rows, directory: [])
    monkeypatch.setattr("metaopt.outer.ppo.trainer.plot_policy_run", lambda rows, directory: [])


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if isinstance(config, Config)])
def test_a_bundled_config_runs(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    overrides: dict[str, object] = {f"tasks.{i}.horizon": [STEPS, STEPS] for i in range(len(config.tasks))}
    overrides |= {"outer.steps": 1, "outer.shard_particles": 1}
    if config.outer.estimator.recipe.window > STEPS:
        overrides["outer.estimator.window"] = STEPS
    if config.validation is not None:
        overrides |= {"validation.every_steps": 1, "validation.horizon": STEPS, "validation.particles": 2, "validation.max_templates": 1}
    run = metaopt.train(name, overrides=overrides, run_dir=tmp_path / "run")
    assert run.metrics["step"].tolist() == [1]
    assert (run.chosen is not None) == (config.validation is not None)
    assert run.quarantined == 0
    artifact = metaopt.load(str(run.artifact))
    assert artifact.card["rule"]["name"] == config.learner.rule


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if isinstance(config, PolicyConfig)])
def test_a_bundled_config_of_a_policy_runs(name: str, tmp_path: Path) -> None:
    """On one small template: what takes long are the reference curves of many."""
    config = CONFIGS[name]
    small = {"outer.steps": 1, "outer.groups_per_step": 1, "outer.group_runs": 2, "outer.decisions": [2, 2], "outer.template_tasks": 1}
    overrides: dict[str, object] = {**small, "outer.decisions_per_step": None, "outer.curriculum": []}
    overrides["tasks"] = [{"family": "quadratic", "horizon": [32, 32], "templates": 1}]
    run = metaopt.train(name, overrides=overrides, run_dir=tmp_path / "run")
    assert run.metrics["step"].tolist() == [1]
    assert run.metrics["episodes"].tolist() == [2]
    assert run.quarantined == 0
    artifact = metaopt.load(str(run.artifact))
    assert artifact.card["kind"] == "policy"
    assert artifact.card["rule"]["options"]["hidden"] == config.learner.hidden
