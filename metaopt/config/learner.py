"""The learner's part of a config: a learned update rule, or a classic one under learned schedules."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, model_validator
from pydantic_core import PydanticCustomError

from metaopt.config.options import Chosen, option_model, options_of
from metaopt.config.sections import NonNegative, Section, config_error
from metaopt.errors import ConfigError

if TYPE_CHECKING:
    from metaopt.learners import Learner

__all__ = ["POLICY", "LearnerChoice", "LearnerConfig", "LearnerSection", "ScheduleConfig", "has_kind"]

_SCHEDULE = "schedule"
POLICY = "policy"
"""The `kind` of a learner that has a root config of its own, `metaopt.config.policy`."""


class LearnerSection(Section, ABC):
    """What is meta-trained: a rule by name; further keys are options, the fields of a dataclass."""

    rule: str

    @property
    def options(self) -> dict[str, Any]:
        """The options, which are keyword arguments of what builds the learner."""
        return self.model_dump(exclude={"rule", "kind"})

    @abstractmethod
    def build(self) -> "Learner":
        """Return the learner."""


class LearnerConfig(LearnerSection):
    """A learned update rule; further keys are the rule's own options."""

    schedule: Literal["constant", "warmup_cosine"] = "constant"
    weight_decay: NonNegative = 0.0

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `learners.get(rule, **options)`."""
        return self.model_dump(exclude={"rule"})

    def build(self) -> "Learner":
        """Return the gradient learner of the rule."""
        from metaopt import learners

        return learners.get(self.rule, **self.options)


class ScheduleConfig(LearnerSection):
    """`kind: schedule`: a classic rule whose hyperparameters follow learned schedules; further keys say which, and where they start."""

    kind: str

    def build(self) -> "Learner":
        """Return the learned schedule at its start."""
        from metaopt.learners.hypergradients.schedule import scheduled_learner

        return scheduled_learner(self.rule, **self.options)

    @model_validator(mode="after")
    def _check(self) -> "ScheduleConfig":
        try:
            self.build()
        except ConfigError as error:
            raise config_error((), f"cannot be used: {error}") from error
        return self


def _learned_rules() -> Mapping[str, Any]:
    """Return the rules that have something to learn, by name: those of one tensor, then those that see all."""
    from metaopt.learners.update_rules import CLASSIC, MODEL_RULES, RULES

    return {**{name: RULES[name] for name in RULES if name not in CLASSIC}, **MODEL_RULES}


def _scheduled_rules() -> Mapping[str, Any]:
    """Return the rules that schedules can be learned for, by name."""
    from metaopt.learners.update_rules.classic import CLASSIC

    return CLASSIC


class LearnerChoice(Chosen):
    """Annotation of the learner's section: without `kind` a learned rule, with `kind: schedule` a learned schedule of a classic one."""

    def __init__(self) -> None:
        super().__init__("rule", _learned_rules)

    def model(self, base: type[BaseModel], value: Any) -> type[BaseModel] | None:
        """Return the model of the section that `value` chooses, or None if it names nothing that there is."""
        return _SCHEDULES.model(_schedule_base(), value) if has_kind(value) else super().model(LearnerConfig, value)

    def section(self, base: type[BaseModel], value: Any) -> Any:
        """Return the section that `value` spells."""
        if isinstance(value, base):
            return value
        if has_kind(value):
            if value["kind"] != _SCHEDULE:
                raise PydanticCustomError("unknown_name", "", {"at": ["kind"], "allowed": [_SCHEDULE, POLICY]})
            return _SCHEDULES.section(_schedule_base(), value)
        return super().section(LearnerConfig, value)


_SCHEDULES = Chosen("rule", _scheduled_rules)


def _schedule_base() -> type[BaseModel]:
    from metaopt.learners.hypergradients.schedule import ScheduleOptions

    return option_model(ScheduleConfig, "kind", _SCHEDULE, ScheduleOptions)


def has_kind(value: Any) -> bool:
    """Return whether a learner's section has a `kind` which is not an option of the learned rule that it names."""
    if not isinstance(value, dict) or "kind" not in value:
        return False
    name, rules = value.get("rule"), _learned_rules()
    return not (isinstance(name, str) and name in rules and "kind" in options_of(rules[name]))
