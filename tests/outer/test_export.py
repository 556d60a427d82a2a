"""The artifact of a run says truly where it comes from."""

import math
from pathlib import Path

import torch

from metaopt import tasks
from metaopt.artifacts import load
from metaopt.config import load_config
from metaopt.estimators import ESTIMATORS
from metaopt.evaluation.support import planning_horizon, training_support
from metaopt.learners import get
from metaopt.learners.update_rules import FEATURES
from metaopt.outer.export import Chosen, export
from metaopt.outer.shards import make_learner, shard_sources
from metaopt.outer.validation import Change
from metaopt.tasks.support import number_support, task_axes

CHANGE = Change(before=0.5, after=0.4, difference=-0.1, low=-0.15, high=-0.05)


def written(tmp_path: Path, *overrides: str, change: Change = CHANGE, start: str = "quickstart", chosen: Chosen | None = None):
    config = load_config(start, list(overrides))
    theta = make_learner(config).init_theta(3)
    export(config, theta, change, outer_steps=7, inner_steps=1234, device_hours=0.5, path=tmp_path / "artifact", chosen=chosen)
    return config, theta, load(str(tmp_path / "artifact"))  # checks the card against its schema and its hashes


def test_card_tells_the_run(tmp_path: Path) -> None:
    changes = [
        "outer.steps=7",
        "tasks.0.horizon=[40, 70]",
        "tasks.1.horizon=[50, 60]",
        "seed=4",
        "augmentations.reparametrisation=[0.2, 5.0]",
    ]
    config, theta, artifact = written(tmp_path, *changes)
    training = artifact.card["training"]
    assert artifact.name == config.artifact_name
    assert training["config_hash"] == config.hash
    assert (training["outer_steps"], training["inner_steps"], training["device_hours"]) == (7, 1234, 0.5)
    assert training["seeds"] == [4]
    assert training["support"]["family"] == ["digits_mlp", "quadratic"]
    assert training["support"]["horizon"] == [40, 70]
    assert training["support"]["parameter_scale"] == [0.2, 5.0]
    assert training["support"]["augmentations"] == ["reparametrisation"]
    assert [entry["family"] for entry in training["distribution"]] == ["quadratic", "digits_mlp"]
    assert artifact.card["scores"] == [{"suite": "meta_valid", "metric": "meta_loss_change", "value": -0.1, "low": -0.15, "high": -0.05}]
    assert all(torch.equal(artifact.weights[name], theta[name]) for name in theta)


def test_hashes_are_those_of_episodes_that_training_met(tmp_path: Path) -> None:
    config, _, artifact = written(tmp_path)
    hashes = artifact.card["training"]["task_hashes"]
    assert hashes == sorted(set(hashes))
    assert len(hashes) == 8 * len(shard_sources(config))
    source = shard_sources(config)[0]
    met = source.family.sample(source.template, source.draw(0, 2), source.horizon)
    assert met.hash in hashes
    assert float(source.task(0, 2).horizon) == met.horizon
    held_out = tasks.get("quadratic").sample("20x1-gradient", source.draw(0, 2), source.horizon)
    assert held_out.hash not in hashes


def test_the_rule_can_be_built_from_its_card(tmp_path: Path) -> None:
    config, theta, artifact = written(tmp_path, "learner.output=rms", "learner.start=random", "artifact.warmup_frac=0.1")
    rule = artifact.card["rule"]
    again = get(rule["name"], **rule["options"])
    assert again.rule == make_learner(config).rule
    assert again.init_theta(0).keys() == theta.keys()
    assert artifact.card["step"]["default_schedule"]["warmup_frac"] == 0.1
    assert not {"schedule", "weight_decay"} & rule["options"].keys()


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    nan = math.nan
    _, _, artifact = written(tmp_path, "augmentations.reparametrisation=null", change=Change(nan, nan, nan, nan, nan))
    assert artifact.card["scores"] == []
    support = artifact.card["training"]["support"]
    assert (support["parameter_scale"], support["gradient_noise"], support["augmentations"]) == ([1.0, 1.0], [0.0, 0.0], [])


def test_support_has_every_axis_of_the_tasks(tmp_path: Path) -> None:
    config, _, artifact = written(tmp_path, "augmentations.gradient_noise={level: [0.1, 0.2], probability: 1.0}")
    support = artifact.card["training"]["support"]
    assert training_support(artifact.card) == support
    met = [source for source in shard_sources(config) if source.family.name == "digits_mlp"]
    axes = [task_axes(source.family.sample(source.template, 0, (1, 1))) for source in met]
    for axis in ("width", "depth", "batch"):
        values = [one[axis] for one in axes if axis in one]
        assert support[axis] == [min(values), max(values)]
    assert support["activation"] == sorted({one["activation"] for one in axes if "activation" in one})
    assert (support["data"], support["architecture"]) == (["digits", "quadratic"], ["mlp", "quadratic"])
    assert (support["init_scale"], support["loss_scale"], support["gradient_noise"]) == ([0.5, 2.0], [1.0, 1.0], [0.1, 0.2])
    assert support["precision"] == ["float32"]


def test_support_knows_what_shards_drew_in_later_phases(tmp_path: Path) -> None:
    change = ["augmentations.bfloat16={probability: 0.05}", "outer.phases=[{}, {}, {}, {}, {}, {}]"]
    config, _, artifact = written(tmp_path, *change)
    drawn = [source.chosen for phase in range(6) for source in shard_sources(config, phase)]
    now = [source.chosen for source in shard_sources(config)]
    assert artifact.card["training"]["support"] | number_support(drawn) == artifact.card["training"]["support"]
    assert number_support(drawn)["precision"] == ["bfloat16", "float32"]
    assert number_support(now)["precision"] == ["float32"], "choose another seed: this test wants phases that differ"


def test_card_says_which_theta_validation_chose(tmp_path: Path) -> None:
    chosen = Chosen(step=40, kind="average", loss=0.31, low=0.3, high=0.32)
    _, _, artifact = written(tmp_path, "validation={every_steps: 20, objective: train}", "outer.average={}", chosen=chosen)
    change, score = artifact.card["scores"]
    assert change["metric"] == "meta_loss_change"
    assert (score["suite"], score["metric"]) == ("meta_valid", "train_loss_of_selection")
    assert (score["value"], score["low"], score["high"], score["outer_step"], score["theta"]) == (0.31, 0.3, 0.32, 40, "average")
    assert "other particles" in score["note"]


def test_support_spans_the_horizons_of_stages_and_phases(tmp_path: Path) -> None:
    stages = "outer.curriculum=[{from_frac: 0, horizon_frac: 0.5}, {from_frac: 0.5}]"
    _, _, artifact = written(tmp_path, stages, "outer.phases=[{}, {horizon: [30, 400]}]")
    assert artifact.card["training"]["support"]["horizon"] == [30, 400]
    config = load_config("quickstart", [stages])
    source = shard_sources(config)[0]
    _, _, staged = written(tmp_path / "staged", stages)
    met = source.family.sample(source.template, source.draw(0, 2), source.stages[0])
    assert met.hash in staged.card["training"]["task_hashes"]
    assert float(source.task(0, 2, 0).horizon) == met.horizon


def test_a_truncated_estimator_plans_as_far_as_its_window(tmp_path: Path) -> None:
    """Persistent estimators see the whole episode, and so does a window as long as the longest one."""
    assert {name for name in ESTIMATORS if getattr(ESTIMATORS[name], "truncated", False)} == {"truncated_es", "truncated_backprop"}
    horizons = ["tasks.0.horizon=[40, 70]", "tasks.1.horizon=[50, 60]"]
    told = {}
    for name, window in (("pes", 25), ("truncated_es", 25), ("truncated_es", 40)):
        change = [f"outer.estimator={{name: {name}, window: {window}, sigma: 0.01}}"]
        _, _, artifact = written(tmp_path / f"{name}-{window}", *horizons, *change)
        told[name, window] = artifact.card["training"].get("planning_horizon"), planning_horizon(artifact.card)
    assert told == {("pes", 25): (None, 70), ("truncated_es", 25): (25, 25), ("truncated_es", 40): (40, 40)}
    _, _, whole = written(tmp_path / "whole", "outer.estimator={name: truncated_es, window: 50, sigma: 0.01}", *_fixed_horizons(50))
    assert "planning_horizon" not in whole.card["training"]


def _fixed_horizons(steps: int) -> list[str]:
    return [f"tasks.{i}.horizon=[{steps}, {steps}]" for i in range(2)]


def test_a_rule_that_sees_all_tensors_says_what_it_reads(tmp_path: Path) -> None:
    """One that reads the length of the run has a schedule of its own, and gets none from the card."""
    _, _, artifact = written(tmp_path / "a", "learner={rule: celo, schedule_hidden: 5}")
    assert artifact.card["kind"] == "update_rule"
    assert artifact.card["rule"]["options"]["schedule_hidden"] == 5
    assert artifact.card["limits"] == {"needs_loss": True, "needs_total_steps": True}
    assert artifact.card["step"]["default_schedule"] is None
    assert artifact.card["features"] == list(FEATURES["celo"])
    _, _, artifact = written(tmp_path / "b", "learner={rule: rnn_mlp, lstm_hidden: 5}")
    assert artifact.card["limits"] == {"needs_loss": True, "needs_total_steps": False}
    assert artifact.card["step"]["default_schedule"] == {"warmup_frac": 0.05, "final_frac": 0.0}
    _, _, artifact = written(tmp_path / "c")
    assert artifact.card["limits"] == {}
