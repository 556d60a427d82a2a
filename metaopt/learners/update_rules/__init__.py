"""Update rules: hand-made and learned, one contract."""

from collections.abc import Callable
from typing import Any

from metaopt.errors import ConfigError
from metaopt.learners.update_rules import celo2, mlp
from metaopt.learners.update_rules.celo2 import Celo2Base
from metaopt.learners.update_rules.classic import CLASSIC, ClassicRule
from metaopt.learners.update_rules.learnable_adam import LearnableAdam
from metaopt.learners.update_rules.mlp import MLPRule
from metaopt.learners.update_rules.rule import State, Theta, UpdateRule, apply_rule, hyper
from metaopt.names import nearest
from metaopt.registry import Registry

__all__ = [
    "CLASSIC",
    "FEATURES",
    "RULES",
    "Celo2Base",
    "ClassicRule",
    "LearnableAdam",
    "MLPRule",
    "State",
    "Theta",
    "UpdateRule",
    "apply_rule",
    "get_rule",
    "hyper",
]


def _classic(name: str) -> Callable[..., UpdateRule]:
    def make(**hyperparameters: float) -> UpdateRule:
        rule = CLASSIC[name]
        for key in hyperparameters:
            if key not in rule.hyperparameters:
                raise ConfigError(f"rule {name} has no hyperparameter {key!r}{nearest(key, rule.hyperparameters)}")
        return ClassicRule(name, rule.formula, rule.tensors, {**rule.hyperparameters, **hyperparameters}, rule.scalars)

    return make


# Inputs of the rules that have a network, in order.
FEATURES: dict[str, tuple[str, ...]] = {"mlp": mlp.FEATURES, "celo2_base": celo2.FEATURES}

RULES: Registry[Callable[..., UpdateRule]] = Registry(
    "update rule",
    "metaopt.learners",
    {
        **{name: _classic(name) for name in CLASSIC},
        "mlp": MLPRule,
        "learnable_adam": LearnableAdam,
        "celo2_base": Celo2Base,
    },
)


def get_rule(name: str, **options: Any) -> UpdateRule:
    """Return an update rule by name with its options (a classic rule: its hyperparameters).

    Raises:
        ConfigError: no such rule, or no such option.
    """
    make = RULES[name]
    try:
        return make(**options)
    except TypeError as error:
        raise ConfigError(f"update rule {name}: {error}") from error
