"""What the artifact of a policy must be for anything to run it."""

from typing import Any

import pytest
import torch

from metaopt import seeds
from metaopt.artifacts import Artifact, load, new_card
from metaopt.artifacts.policy import INTERFACE, is_policy, load_policy, policy_artifact
from metaopt.errors import ConfigError, UnsafeArtifactError
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec
from metaopt.learners.policies.observation import NAMES

SPEC = PolicySpec(table="published", hidden=8, knobs=("lr", "epsilon"), registers=False, inner=("adamw",))


def network() -> PolicyNetwork:
    made = PolicyNetwork(SPEC, seeds.key("policy", 3))
    with torch.no_grad():
        for value in made.state_dict().values():
            if value.is_floating_point():
                value.add_(0.125)  # so that nothing is what a fresh one has, normaliser included
    return made


def artifact(weights: dict[str, Any] | None = None, **fields: Any) -> Artifact:
    good = policy_artifact("mine", network())
    changed = {name: value for name, value in {**good.weights, **(weights or {})}.items() if value is not None}
    return Artifact({**good.card, **fields}, changed)


def test_it_survives_the_disk(tmp_path) -> None:
    loaded = load(policy_artifact("mine", network(), limits={"max_lr": 0.03}).save(tmp_path / "mine"))
    found = load_policy(loaded)
    assert is_policy(loaded)
    assert (loaded.card["kind"], loaded.card["interface"], tuple(loaded.card["features"])) == ("policy", INTERFACE, NAMES)
    assert loaded.card["limits"] == {"max_lr": 0.03}
    assert found.spec == SPEC
    assert not found.training
    assert not any(value.requires_grad for value in found.parameters())
    wanted = network().state_dict()
    assert wanted.keys() == found.state_dict().keys()
    assert all(torch.equal(value, wanted[name]) for name, value in found.state_dict().items())


def test_the_loaded_network_decides_as_the_saved_one(tmp_path) -> None:
    saved, path = network(), tmp_path / "mine"
    policy_artifact("mine", saved).save(path)
    found, inputs = load_policy(path), seeds.normal(seeds.key("inputs"), (len(NAMES),))
    with torch.no_grad():
        assert torch.equal(saved.step(inputs, saved.initial_state())[0], found.step(inputs, found.initial_state())[0])


def test_a_later_change_of_the_network_is_not_the_artifacts() -> None:
    made = network()
    kept = policy_artifact("mine", made)
    before = kept.fingerprint
    with torch.no_grad():
        made.heads.weight.zero_()
    assert kept.fingerprint == before


def test_other_kinds_and_versions_are_refused() -> None:
    rule, schedule = (Artifact(new_card("other", "adamw", **fields), {}) for fields in ({}, {"interface": "learned_schedule/1"}))
    assert not is_policy(rule)
    with pytest.raises(ConfigError, match="artifact 'other' is of kind update_rule, no policy; run it with LearnedOptimizer"):
        load_policy(rule)
    with pytest.raises(ConfigError, match="no policy; run it with LearnedSchedule"):
        load_policy(schedule)
    with pytest.raises(ConfigError, match="interface hyperparameter_policy/2, and hyperparameter_policy/1 is known here; upgrade metaopt"):
        load_policy(artifact(interface="hyperparameter_policy/2"))
    with pytest.raises(ConfigError, match="'mine' reads other inputs than are measured here"):
        load_policy(artifact(features=[*NAMES[1:], NAMES[0]]))


def test_archives_are_refused_by_name(tmp_path) -> None:
    path = tmp_path / "ppo_cartpole.ZIP"
    path.write_bytes(b"never opened")
    for given in (path, str(path), "missing.zip"):
        with pytest.raises(ConfigError, match=r"is a zip archive, .* run code when they are read; give the folder of a policy artifact"):
            load_policy(given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tabel": "wide"}, "has no option 'tabel'; did you mean 'table'"),
        ({"table": "narrow"}, "unknown 'narrow'"),
        ({"knobs": ["lr", "momentum"]}, "unknown 'momentum'"),
        ({"hidden": 8.5}, "option hidden"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"registers": 1}, "option registers"),
    ],
)
def test_options_of_the_card_are_checked(options: dict[str, Any], message: str) -> None:
    good = artifact()
    with pytest.raises(ConfigError, match=message):
        load_policy(artifact(rule={**good.card["rule"], "options": {**good.card["rule"]["options"], **options}}))


def test_a_card_cannot_ask_for_more_memory_than_its_weights_take() -> None:
    good = artifact()
    with pytest.raises(UnsafeArtifactError, match=r"hidden=1000000 does not fit its [0-9]+ weights"):
        load_policy(artifact(rule={**good.card["rule"], "options": {**good.card["rule"]["options"], "hidden": 10**6}}))
    with pytest.raises(ConfigError, match="'mine' reads other inputs"):
        load_policy(artifact(rule={**good.card["rule"], "options": {**good.card["rule"]["options"], "inputs": 10**9}}))


BIAS = "heads.bias"
SIZE = sum(SPEC.nvec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({BIAS: None}, rf"weight 'heads.bias' does not fit its card: expected float32 \({SIZE},\), found none"),
        ({BIAS: torch.zeros(4)}, rf"weight 'heads.bias' does not fit its card: expected float32 \({SIZE},\), found float32 \(4,\)"),
        ({BIAS: torch.zeros(SIZE).double()}, r"expected float32 .*, found float64"),
        ({"more": torch.zeros(3)}, r"weight 'more' does not fit its card: expected none, found float32 \(3,\)"),
        ({BIAS: torch.full((SIZE,), float("nan"))}, "weight 'heads.bias' is not finite"),
    ],
)
def test_weights_must_fit_the_card(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsafeArtifactError, match=message):
        load_policy(artifact(change))
