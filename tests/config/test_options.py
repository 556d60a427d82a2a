"""Sections whose keys come from a dataclass that a registry holds."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from metaopt import learners
from metaopt.config import parse_config
from metaopt.config.options import options_of
from metaopt.errors import ConfigError
from metaopt.learners.update_rules import RULES, State, Theta

CONFIG = """\
name: small
learner:
  rule: scaled_sign
  power: 2.0
tasks:
  - {family: quadratic, horizon: [10, 20]}
outer:
  steps: 3
  shard_particles: 2
  estimator: {name: pes, window: 5}
  optimizer: {lr: 1e-3}
"""


@dataclass(frozen=True)
class ScaledSign:
    """A rule of somebody else's."""

    power: Annotated[float, Gt(0)]
    mode: Literal["sign", "raw"] = "sign"
    widths: tuple[Annotated[int, Ge(1)], ...] = (4,)
    name: str = field(init=False, default="scaled_sign")
    hyperparameters: dict[str, float] = field(init=False, default_factory=lambda: {"lr": 1.0}, hash=False)

    def init_theta(self, seed: int) -> Theta:
        return {"scale": torch.ones(())}

    def init_state(self, param: Tensor) -> State:
        return {}

    def update(self, theta: Theta, param: Tensor, grad: Tensor, state: State, t: Tensor) -> tuple[Tensor, State]:
        return theta["scale"] ** self.power * torch.sign(grad), state


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RULES, "_entries", dict(RULES))
    learners.register(ScaledSign)


def test_options_are_the_init_fields() -> None:
    assert list(options_of(ScaledSign)) == ["power", "mode", "widths"]
    assert [default for _, default in options_of(ScaledSign).values()] == [..., "sign", (4,)]


def test_a_registered_rule_has_a_config() -> None:
    config = parse_config(CONFIG, "x", ["learner.widths=[3, 5]"])
    assert config.learner.options == {"schedule": "constant", "weight_decay": 0.0, "power": 2.0, "mode": "sign", "widths": (3, 5)}
    assert learners.get(config.learner.rule, **config.learner.options).rule == ScaledSign(2.0, "sign", (3, 5))
    assert parse_config(config.to_yaml(), "again").hash == config.hash


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learner.power=0"], "learner.power must be > 0, got 0 (override learner.power=0)"),
        (["learner.mode=sgin"], "learner.mode must be one of sign, raw, got 'sgin'; did you mean sign? (override learner.mode=sgin)"),
        (["learner.widths=[3, 0]"], "learner.widths.1 must be >= 1, got 0 (override learner.widths=[3, 0])"),
        (["learner.widht=[3]"], "unknown key learner.widht; did you mean learner.widths? (override learner.widht=[3])"),
        (["learner.powers=[3]"], "unknown key learner.powers; did you mean learner.power? (override learner.powers=[3])"),
        (["learner={rule: scaled_sign}"], "learner.power is missing (override learner={rule: scaled_sign})"),
        (["learner={power: 1.0}"], "learner.rule is missing (override learner={power: 1.0})"),
        (["learner=scaled_sign"], "learner must be a mapping of keys to values, got 'scaled_sign' (override learner=scaled_sign)"),
    ],
)
def test_its_options_are_checked(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(CONFIG, "x", overrides)
    assert str(caught.value) == message


def test_classic_rules_have_nothing_to_learn() -> None:
    with pytest.raises(ConfigError, match=r"^learner\.rule must be one of .*, got 'adamw'"):
        parse_config(CONFIG, "x", ["learner={rule: adamw}"])


@pytest.mark.parametrize("rule", [object, dataclass(type("Nameless", (), {}))])
def test_registering_needs_a_dataclass_with_a_name(rule: Any) -> None:
    with pytest.raises(ConfigError, match="must be a dataclass with `name: str"):
        learners.register(rule)
