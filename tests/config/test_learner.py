"""The learner's section: learned rules as ever, and learned schedules of classic ones by `kind: schedule`."""

import json
from dataclasses import dataclass, field

import pytest
import torch

from metaopt import learners
from metaopt.config import load_config, parse_config
from metaopt.config.learner import LearnerConfig, ScheduleConfig
from metaopt.errors import ConfigError
from metaopt.learners.hypergradients.schedule import ScheduledLearner, scheduled_learner
from metaopt.learners.update_rules import RULES

CONFIG = """\
name: small
learner:
  kind: schedule
  rule: momentum
  learn: [lr, momentum]
  values: 3
  lr: 0.1
tasks:
  - {family: quadratic, horizon: [10, 20]}
outer:
  steps: 3
  shard_particles: 2
  estimator: {name: pes, window: 5}
  optimizer: {lr: 1e-3}
"""


def test_a_schedule_is_chosen_by_its_kind() -> None:
    config = parse_config(CONFIG, "small.yaml")
    assert isinstance(config.learner, ScheduleConfig)
    assert config.learner.build() == scheduled_learner("momentum", learn=["lr", "momentum"], values=3, lr=0.1)
    given = {"learn": ("lr", "momentum"), "values": 3, "shape": "linear", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    assert config.learner.options == given


def test_it_survives_its_own_yaml() -> None:
    config = parse_config(CONFIG, "small.yaml", ["learner.shape=constant"])
    again = parse_config(config.to_yaml(), "again.yaml")
    assert again.hash == config.hash
    assert again.hash != parse_config(CONFIG, "small.yaml").hash
    assert "  lr: 0.1  # small.yaml:7" in config.to_yaml()
    assert '  shape: "constant"  # override' in config.to_yaml()


def test_learned_rules_say_what_they_said_before() -> None:
    config = load_config("quickstart")
    assert isinstance(config.learner, LearnerConfig)
    assert isinstance(config.learner.build(), learners.GradientLearner)
    shown = json.loads(json.dumps(config.learner.model_dump(mode="json")))
    assert list(shown)[:3] == ["rule", "schedule", "weight_decay"]
    assert "kind" not in shown, "a key more would change the hash of every run there is"


def test_the_bundled_config_learns_three_schedules() -> None:
    learner = load_config("schedule").learner.build()
    assert isinstance(learner, ScheduledLearner)
    assert (learner.rule.name, learner.learn) == ("adamw", ("lr", "beta1", "weight_decay"))


def test_phases_know_the_entries_of_theta() -> None:
    config = parse_config(CONFIG, "small.yaml", ["outer.phases=[{train: [lr]}, {train: [momentum]}]"])
    assert len(config.outer.phases) == 2
    with pytest.raises(ConfigError, match=r"must match an entry of theta, got 'beta1'; nearest: \w+; there are lr, momentum"):
        parse_config(CONFIG, "small.yaml", ["outer.phases=[{train: [beta1]}]"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learner.kind=shedule", "learner.kind must be one of schedule, policy, got 'shedule'; did you mean schedule?"),
        ("learner.rule=muon", "learner.rule must be one of sgd, momentum, nesterov, adam, adamw, nadam, rmsprop, got 'muon'"),
        ("learner.valves=4", "unknown key learner.valves; did you mean learner.values?"),
        ("learner.values=0", "learner.values must be >= 1, got 0"),
        ("learner.shape=cubic", "learner.shape must be one of linear, constant, got 'cubic'"),
        ("learner.momentum=1.0", "learner.momentum must be < 1, got 1.0"),
        ("learner.beta1=0.9", "unknown key learner.beta1"),
        ("learner.learn=[lr, beta1]", "learner cannot be used: learn names 'beta1', which momentum has no schedule for; known: lr, mom"),
        (
            "learner.learn=[lr, weight_decay]",
            "learner cannot be used: weight_decay of momentum starts at 0, and is learned within (0, inf)",
        ),
        ("learner.learn=lr", "learner.learn must be a list, got 'lr'"),
        ("learner.schedule=constant", "unknown key learner.schedule"),
    ],
)
def test_bad_sections_are_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(CONFIG, "small.yaml", [override])
    assert str(caught.value).startswith(message), str(caught.value)
    assert "small.yaml" in str(caught.value) or "override" in str(caught.value)


def test_a_learned_rule_needs_no_kind_and_a_schedule_does() -> None:
    with pytest.raises(ConfigError, match=r"learner.rule must be one of mlp, .*, got 'momentum'"):
        parse_config(CONFIG.replace("  kind: schedule\n", ""), "small.yaml")


def test_a_registered_rule_may_have_an_option_called_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Kinded:
        kind: str = "soft"
        name: str = field(init=False, default="kinded")
        hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)

        def init_theta(self, seed: int):
            return {"scale": torch.ones(())}

    monkeypatch.setattr(RULES, "_entries", {**RULES, "kinded": Kinded})
    start = CONFIG.index("  kind"), CONFIG.index("tasks:")
    config = parse_config(f"{CONFIG[: start[0]]}  kind: hard\n  rule: kinded\n{CONFIG[start[1] :]}", "small.yaml")
    assert config.learner.options["kind"] == "hard"


MODEL = CONFIG.replace(
    "  kind: schedule\n  rule: momentum\n  learn: [lr, momentum]\n  values: 3\n  lr: 0.1\n", "  rule: celo\n  start: random\n"
)


def test_a_rule_that_sees_all_tensors_is_chosen_by_its_name() -> None:
    config = parse_config(MODEL, "small.yaml", ["learner.schedule_hidden=5"])
    assert isinstance(config.learner, LearnerConfig)
    assert config.learner.build() == learners.get("celo", start="random", schedule_hidden=5)
    assert isinstance(config.learner.build(), learners.ModelRuleLearner)
    assert parse_config(config.to_yaml(), "again.yaml").hash == config.hash


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learner.schedule_hiden=5", "schedule_hiden"),
        ("learner.schedule_hidden=0", "learner.schedule_hidden"),
        ("learner.rule=cello", "celo"),
    ],
)
def test_options_of_such_a_rule_are_checked_as_those_of_others(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(MODEL, "small.yaml", [override])
