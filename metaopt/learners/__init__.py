"""Learners: pairs (`init`, `advance`) of pure functions, and their registry."""

from typing import Any

from metaopt.errors import ConfigError
from metaopt.learners.dog import DoG, LDoG
from metaopt.learners.hypergradients import PRESETS
from metaopt.learners.hypergradients.hdm import HDMBest
from metaopt.learners.hypergradients.metaoptimize import MetaOptimize
from metaopt.learners.lbfgs import LBFGS
from metaopt.learners.learner import SCHEDULES, Carry, GradientLearner, Learner, Schedule, StepRecord, named_schedule, schedule_factor
from metaopt.learners.model_rule_learner import ModelRuleLearner
from metaopt.learners.prodigy import Prodigy
from metaopt.learners.schedule_free import ScheduleFreeAdamW
from metaopt.learners.update_rules import MODEL_RULES, RULES, ModelRule, UpdateRule, get_model_rule, get_rule, is_model_rule
from metaopt.learners.whole_model import WholeModelLearner
from metaopt.names import nearest

__all__ = [
    "SCHEDULES",
    "WHOLE_MODEL",
    "Carry",
    "GradientLearner",
    "Learner",
    "ModelRuleLearner",
    "Schedule",
    "StepRecord",
    "WholeModelLearner",
    "get",
    "learner_of",
    "named_schedule",
    "names",
    "register",
    "rule_of",
    "schedule_factor",
]

Rule = UpdateRule | ModelRule


# Hand-made learners that are no update rules, because they look at all tensors at once.
WHOLE_MODEL: dict[str, type[WholeModelLearner]] = {learner.name: learner for learner in (ScheduleFreeAdamW, Prodigy, LBFGS, DoG, LDoG)}
WHOLE_MODEL |= PRESETS
WHOLE_MODEL |= {learner.name: learner for learner in (HDMBest, MetaOptimize)}


def register(rule: type[Rule]) -> type[Rule]:
    """Add a rule, a frozen dataclass whose init fields are its options, under its `name`; usable as a decorator.

    From then on it has a config (`learner: {rule: NAME, ...}`), artifacts, and a drop-in optimizer. An installed package does the same by
    an entry point of group `metaopt.learners` (update rules) or `metaopt.model_rules` (rules that see all tensors).

    Raises:
        ConfigError: it is no dataclass, has no name of its own, or the name is taken.
    """
    name = vars(rule).get("name")
    if "__dataclass_fields__" not in vars(rule) or not isinstance(name, str):
        raise ConfigError(f"update rule {rule!r} must be a dataclass with `name: str = field(init=False, default=...)`, got name {name!r}")
    kinds: tuple[Any, Any] = (MODEL_RULES, RULES) if is_model_rule(rule) else (RULES, MODEL_RULES)
    own, other = kinds
    if name in other:
        raise ConfigError(f"{other.what} {name!r} is registered already; choose another name")
    own.register(name, rule)
    return rule


def names() -> tuple[str, ...]:
    """Return the names of all rules: update rules, and those that see all tensors."""
    return (*RULES, *MODEL_RULES)


def rule_of(name: str, **options: Any) -> Rule:
    """Return a rule of either kind by name, with its options.

    Raises:
        ConfigError: unknown name or option.
    """
    if name not in RULES and name not in MODEL_RULES:
        raise ConfigError(f"update rule {name!r} is unknown{nearest(name, names())}")
    return get_model_rule(name, **options) if name in MODEL_RULES else get_rule(name, **options)


def learner_of(rule: Rule, schedule: Schedule = SCHEDULES["constant"], weight_decay: float = 0.0) -> GradientLearner | ModelRuleLearner:
    """Return the learner that a rule of either kind makes."""
    if is_model_rule(rule):
        return ModelRuleLearner(rule, schedule, weight_decay)
    return GradientLearner(rule, schedule, weight_decay)


def get(name: str, schedule: str = "constant", weight_decay: float = 0.0, **options: Any) -> GradientLearner | ModelRuleLearner:
    """Return a learner by name; `options` go to its rule.

    Raises:
        ConfigError: unknown name, schedule or option.
    """
    return learner_of(rule_of(name, **options), named_schedule(schedule), weight_decay)
