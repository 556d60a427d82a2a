"""Learners: pairs (`init`, `advance`) of pure functions, and their registry."""

from typing import Any

from metaopt.learners.learner import SCHEDULES, Carry, GradientLearner, Learner, Schedule, StepRecord, named_schedule, schedule_factor
from metaopt.learners.update_rules import RULES, get_rule

__all__ = [
    "SCHEDULES",
    "Carry",
    "GradientLearner",
    "Learner",
    "Schedule",
    "StepRecord",
    "get",
    "named_schedule",
    "names",
    "schedule_factor",
]


def names() -> tuple[str, ...]:
    """Return the names of all learners."""
    return tuple(RULES)


def get(name: str, schedule: str = "constant", weight_decay: float = 0.0, **options: Any) -> GradientLearner:
    """Return a learner by name; `options` go to its rule.

    Raises:
        ConfigError: unknown name, schedule or option.
    """
    return GradientLearner(get_rule(name, **options), named_schedule(schedule), weight_decay)
