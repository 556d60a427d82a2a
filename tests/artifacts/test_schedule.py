"""What the artifact of a learned schedule must be for anything to run it."""

from typing import Any

import pytest
import torch

from metaopt.artifacts import Artifact, load, new_card
from metaopt.artifacts.schedule import is_schedule, learned_schedule
from metaopt.errors import ConfigError, UnsafeArtifactError
from metaopt.learners.hypergradients.schedule import scheduled_learner

OPTIONS: dict[str, Any] = {"learn": ["lr", "beta1"], "values": 3, "shape": "constant", "lr": 0.01}


def artifact(weights: dict[str, torch.Tensor] | None = None, rule: str = "adamw", interface: str = "learned_schedule/1", **options: Any):
    options = {**OPTIONS, **options}
    theta = scheduled_learner("adamw", **OPTIONS).init_theta(0) if weights is None else weights
    return Artifact(new_card("mine", rule, options=options, kind="hypergradient", interface=interface), theta)


def test_it_survives_the_disk(tmp_path) -> None:
    loaded = load(artifact().save(tmp_path / "mine"))
    learner, theta = learned_schedule(loaded)
    assert is_schedule(loaded)
    assert learner == scheduled_learner("adamw", **OPTIONS)
    assert list(theta) == ["lr", "beta1"], "in the order of the card, whatever that of the file"
    assert all(torch.equal(theta[name], value) for name, value in learner.init_theta(0).items())


def test_other_kinds_and_versions_are_refused() -> None:
    rule = Artifact(new_card("rule", "adamw"), {})
    assert not is_schedule(rule)
    with pytest.raises(ConfigError, match="artifact 'rule' is of kind update_rule, no learned schedule; run it with LearnedOptimizer"):
        learned_schedule(rule)
    with pytest.raises(ConfigError, match=r"interface learned_schedule/2, and learned_schedule/1 is known here; upgrade metaopt"):
        learned_schedule(artifact(interface="learned_schedule/2"))
    with pytest.raises(ConfigError, match="a schedule cannot be learned for rule 'adamx'"):
        learned_schedule(artifact(rule="adamx"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta1": None}, r"weight 'beta1' does not fit its card: expected \(3,\), found none"),
        ({"lr": torch.zeros(4)}, r"weight 'lr' does not fit its card: expected \(3,\), found \(4,\)"),
        ({"eps": torch.zeros(3)}, r"weight 'eps' does not fit its card: expected none, found \(3,\)"),
        ({"lr": torch.tensor([0.0, float("nan"), 0.0])}, "weight 'lr' is not finite"),
    ],
)
def test_weights_must_fit_the_card(change: dict[str, Any], message: str) -> None:
    weights = {name: value for name, value in {**artifact().weights, **change}.items() if value is not None}
    with pytest.raises(UnsafeArtifactError, match=message):
        learned_schedule(artifact(weights))
