"""Learners: pairs (`init`, `advance`) of pure functions, and their registry."""

from typing import Any

from metaopt.errors import ConfigError
from metaopt.learners.dog import DoG, LDoG
from metaopt.learners.hypergradients import PRESETS
from metaopt.learners.hypergradients.hdm import HDMBest
from metaopt.learners.hypergradients.metaoptimize import MetaOptimize
from metaopt.learners.lbfgs import LBFGS
from metaopt.learners.learner import SCHEDULES, Carry, GradientLearner, Learner, Schedule, StepRecord, named_schedule, schedule_factor
from metaopt.learners.prodigy import Prodigy
from metaopt.learners.schedule_free import ScheduleFreeAdamW
from metaopt.learners.update_rules import RULES, UpdateRule, get_rule
from metaopt.learners.whole_model import WholeModelLearner

__all__ = [
    "SCHEDULES",
    "WHOLE_MODEL",
    "Carry",
    "GradientLearner",
    "Learner",
    "Schedule",
    "StepRecord",
    "WholeModelLearner",
    "get",
    "named_schedule",
    "names",
    "register",
    "schedule_factor",
]


# Hand-made learners that are no update rules, because they look at all tensors at once.
WHOLE_MODEL: dict[str, type[WholeModelLearner]] = {learner.name: learner for learner in (ScheduleFreeAdamW, Prodigy, LBFGS, DoG, LDoG)}
WHOLE_MODEL |= PRESETS
WHOLE_MODEL |= {learner.name: learner for learner in (HDMBest, MetaOptimize)}


def register(rule: type[UpdateRule]) -> type[UpdateRule]:
    """Add an update rule, a frozen dataclass whose init fields are its options, under its `name`; usable as a decorator.

    From then on it has a config (`learner: {rule: NAME, ...}`), artifacts, and a drop-in optimizer. An installed package does the same by
    an entry point of group `metaopt.learners`.

    Raises:
        ConfigError: it is no dataclass, has no name of its own, or the name is taken.
    """
    name = vars(rule).get("name")
    if "__dataclass_fields__" not in vars(rule) or not isinstance(name, str):
        raise ConfigError(f"update rule {rule!r} must be a dataclass with `name: str = field(init=False, default=...)`, got name {name!r}")
    RULES.register(name, rule)
    return rule


def names() -> tuple[str, ...]:
    """Return the names of all learners."""
    return tuple(RULES)


def get(name: str, schedule: str = "constant", weight_decay: float = 0.0, **options: Any) -> GradientLearner:
    """Return a learner by name; `options` go to its rule.

    Raises:
        ConfigError: unknown name, schedule or option.
    """
    return GradientLearner(get_rule(name, **options), named_schedule(schedule), weight_decay)
