"""What a learner may be called on the command line."""

import dataclasses

import pytest
import torch

from metaopt import seeds
from metaopt.artifacts import Artifact, new_card
from metaopt.artifacts.policy import policy_artifact
from metaopt.errors import ConfigError, UnsafeArtifactError
from metaopt.evaluation.candidates import resolve
from metaopt.evaluation.runs.fingerprint import fingerprint
from metaopt.evaluation.suites import load_suite
from metaopt.learners import SCHEDULES, ModelRuleLearner, Schedule, get
from metaopt.learners.hypergradients.schedule import scheduled_learner
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec
from metaopt.learners.policies.policy_learner import PolicyLearner


def artifact(name="mine", **fields):
    learner = get("learnable_adam")
    return Artifact(new_card(name, "learnable_adam", options={"start": "adam"}, **fields), learner.init_theta(0))


def test_baselines_take_their_default_or_a_given_rate():
    plain, given = resolve(["adamw", "sgd_momentum@0.3"])
    assert (plain.name, float(plain.theta["lr"])) == ("adamw@0.001", pytest.approx(1e-3))
    assert (given.name, float(given.theta["lr"])) == ("sgd_momentum@0.3", pytest.approx(0.3))
    assert given.learner.rule.name == "momentum"
    assert given.learner.schedule == SCHEDULES["warmup_cosine"]


def test_presets_are_the_two_starts():
    start, random = resolve(["celo2_base@start", "celo2_base@random"])
    assert (start.learner.rule.start, random.learner.rule.start) == ("adam", "random")
    assert start.hash != random.hash
    assert start.theta.keys() == random.theta.keys() != set()


def test_artifacts_run_at_their_base_step_with_the_cards_schedule(tmp_path):
    step = {"base_lr": 0.5, "default_schedule": {"warmup_frac": 0.1, "final_frac": 0.2}}
    path = artifact(step=step).save(tmp_path / "mine")
    for entry in (str(path), path, artifact(step=step)):
        [one] = resolve(entry)
        assert one.name == "mine"
        assert one.learner.schedule == Schedule(0.1, 0.2)
        assert float(one.theta["lr"]) == 0.5
    [constant] = resolve(artifact())
    assert constant.learner.schedule == SCHEDULES["constant"]
    assert "lr" not in constant.theta


def test_equal_names_are_numbered():
    assert [one.name for one in resolve([artifact(), artifact(), artifact()])] == ["mine", "mine#2", "mine#3"]


def test_the_hash_is_of_content():
    [one], [same] = resolve(artifact()), resolve(artifact("other"))
    assert one.hash == same.hash, "a name is no content"
    moved = dataclasses.replace(one, theta={**one.theta, "log_lr": one.theta["log_lr"] + 1e-3})
    assert moved.hash != one.hash
    other = dataclasses.replace(one, learner=dataclasses.replace(one.learner, schedule=Schedule(0.1, 0.0)))
    assert other.hash != one.hash
    assert torch.equal(one.theta["log_lr"], same.theta["log_lr"])


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ([], ConfigError, "at least one"),
        ("adamw@fast", ConfigError, "takes a learning rate > 0, got 'fast'"),
        ("adamw@-1", ConfigError, "takes a learning rate > 0, got '-1'"),
        ("adamw@inf", ConfigError, "takes a learning rate > 0"),
        ("celo2_base@best", ConfigError, "takes start or random, got 'best'"),
        ("celo2_bas@start", ConfigError, "did you mean 'celo2_base'"),
        ("adam@start", ConfigError, "takes a learning rate > 0, got 'start'"),
        ("no-such-artifact", UnsafeArtifactError, "no such path or name"),
        ("hypergradient_sdg", ConfigError, "is no path, artifact or baseline; did you mean 'hypergradient_sgd'"),
    ],
)
def test_bad_names_are_one_line(entry, error, message):
    with pytest.raises(error, match=message) as caught:
        resolve(entry)
    assert "\n" not in str(caught.value)


def trained(tmp_path, name, shift, **fields):
    one = artifact(name, training={"outer_steps": 5, "support": {"horizon": [10, 20]}}, **fields)
    return Artifact(one.card, {key: value + shift for key, value in one.weights.items()}).save(tmp_path / name)


def test_meta_trainings_of_one_method_are_one_name(tmp_path):
    paths = [trained(tmp_path, f"run{i}", 0.1 * i) for i in range(3)]
    found = resolve(["mine=" + ",".join(map(str, paths)), "adamw"])
    assert [(one.name, one.meta_seed) for one in found] == [("mine", 0), ("mine", 1), ("mine", 2), ("adamw@0.001", 0)]
    assert len({one.hash for one in found}) == 4
    again = resolve([f"mine={paths[0]},{paths[1]}", f"mine={paths[2]}"])
    assert [(one.name, one.meta_seed) for one in again] == [("mine", 0), ("mine", 1), ("mine#2", 0)]


def test_a_path_with_an_equals_sign_is_a_path(tmp_path):
    [one] = resolve(str(trained(tmp_path, "run", 0.0).rename(tmp_path / "lr=1")))
    assert one.meta_seed == 0


def test_meta_seeds_must_be_separate_trainings_of_one_rule(tmp_path):
    path = trained(tmp_path, "run", 0.0)
    with pytest.raises(ConfigError, match="the same artifact is there twice"):
        resolve(f"mine={path},{path}")
    with pytest.raises(ConfigError, match="needs a name and at least one artifact"):
        resolve(f"={path}")
    other = Artifact(new_card("celo", "celo2_base"), {}).save(tmp_path / "other")
    with pytest.raises(ConfigError, match="share a rule, got celo2_base and learnable_adam"):
        resolve(f"mine={path},{other}")


def test_a_meta_trained_learner_without_its_horizon_is_refused():
    with pytest.raises(ConfigError, match=r"not on which horizon; save it again with training\.support\.horizon"):
        resolve(artifact(training={"outer_steps": 5}))


def test_other_kinds_of_artifact_are_refused():
    with pytest.raises(ConfigError, match="only update_rule, schedules and policies can be evaluated"):
        resolve(artifact(kind="policy"))


def test_a_policy_is_its_learner_within_the_rails_of_the_scheduler():
    network = PolicyNetwork(PolicySpec(hidden=4), seeds.key("policy"))
    [one] = resolve(policy_artifact("mine", network, limits={"max_lr": 0.05}))
    assert (one.name, one.kind) == ("mine", "policy")
    assert one.learner == PolicyLearner(network.spec, "adamw", 64, 1e-6, 0.05)
    assert one.theta.keys() == network.state_dict().keys()
    assert fingerprint(one.learner, one.theta) is not None
    assert fingerprint(one.learner, one.theta) != fingerprint(dataclasses.replace(one.learner, decisions=8), one.theta)
    assert all("policy" in task.kinds for task in load_suite("quick").tasks)
    only = PolicyNetwork(PolicySpec(hidden=4, inner=("unitless_adam",)), seeds.key("policy"))
    assert resolve(policy_artifact("mine", only))[0].learner.inner == "unitless_adam"
    with pytest.raises(UnsafeArtifactError, match="hidden=4 does not fit its 0 weights"):
        resolve(Artifact(policy_artifact("mine", network).card, {}))


def test_a_learned_schedule_is_its_learner(tmp_path):
    options = {"learn": ["lr", "beta1"], "values": 3, "shape": "constant"}
    learner = scheduled_learner("adamw", **options)
    fields = {"options": options, "kind": "hypergradient", "interface": "learned_schedule/1"}
    path = Artifact(new_card("mine", "adamw", **fields), learner.init_theta(0)).save(tmp_path / "mine")
    [one] = resolve(str(path))
    assert (one.name, one.kind, one.learner) == ("mine", "hypergradient", learner)
    assert all(torch.equal(one.theta[name], value) for name, value in learner.init_theta(0).items())
    assert one.hash != dataclasses.replace(one, learner=dataclasses.replace(learner, shape="linear")).hash
    assert all("hypergradient" in task.kinds for task in load_suite("quick").tasks)
    trained = new_card("mine", "adamw", **fields, training={"outer_steps": 3})
    with pytest.raises(ConfigError, match="its card tells of meta-training but not on which horizon"):
        resolve(Artifact(trained, learner.init_theta(0)))
    with pytest.raises(ConfigError, match="is of kind 'policy'; only update_rule, schedules and policies can be evaluated"):
        resolve(Artifact(new_card("other", "adamw", kind="policy", interface="policy/1"), {}))


def test_runs_of_a_learned_schedule_can_be_kept():
    learner = scheduled_learner("momentum", learn=["lr", "momentum"])
    theta = learner.init_theta(0)
    mark = fingerprint(learner, theta)
    assert mark is not None
    assert mark == fingerprint(scheduled_learner("momentum", learn=["lr", "momentum"]), theta)
    assert mark != fingerprint(scheduled_learner("momentum", learn=["lr", "momentum"], momentum=0.8), theta)
    assert mark != fingerprint(learner, {**theta, "lr": theta["lr"] + 1e-3})


def test_rules_that_see_all_tensors_are_candidates_like_others(tmp_path):
    start, random, plain = resolve(["celo@start", "celo@random", "rnn_mlp@start"])
    assert isinstance(start.learner, ModelRuleLearner)
    assert (start.learner.rule, random.learner.rule) == (get("celo").rule, get("celo", start="random").rule)
    assert start.hash != random.hash
    assert start.learner.schedule == SCHEDULES["constant"], "it reads the length of the run"
    assert plain.learner.schedule == SCHEDULES["warmup_cosine"]
    learner = get("celo", schedule_hidden=3)
    made = Artifact(new_card("mine", "celo", options={"schedule_hidden": 3}, step={"base_lr": 0.5}), learner.init_theta(0))
    [one] = resolve(str(made.save(tmp_path / "mine")))
    assert (one.learner, float(one.theta["lr"]), one.kind) == (learner, 0.5, "update_rule")
    with pytest.raises(ConfigError, match="celo takes start or random, got 'best'"):
        resolve("celo@best")
