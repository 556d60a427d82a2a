"""Every bundled config runs: one outer step of few particles on short runs, validation included."""

from pathlib import Path

import pytest

import metaopt
from metaopt.config import bundled_configs, load_config


@pytest.mark.parametrize("name", sorted(bundled_configs()))
def test_a_bundled_config_runs(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    window = max(10, config.outer.estimator.recipe.window)
    overrides: dict[str, object] = {f"tasks.{i}.horizon": [window, window] for i in range(len(config.tasks))}
    overrides |= {"outer.steps": 1, "outer.shard_particles": 1}
    if config.validation is not None:
        overrides |= {"validation.every_steps": 1, "validation.horizon": window, "validation.particles": 2, "validation.max_templates": 1}
    run = metaopt.train(name, overrides=overrides, run_dir=tmp_path / "run")
    assert run.metrics["step"].tolist() == [1]
    assert (run.chosen is not None) == (config.validation is not None)
    assert run.quarantined == 0
    artifact = metaopt.load(str(run.artifact))
    assert artifact.card["rule"]["name"] == config.learner.rule
