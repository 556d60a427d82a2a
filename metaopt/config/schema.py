"""What a meta-training config may say: one frozen model a section, with ranges, and the checks between sections.

Unknown keys are refused, integers and booleans are strict, floats are finite. Kinds (rules, estimators) are tagged unions of names, so that
a config can never name code to import.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from metaopt.config.augmentations import AugmentationsConfig
from metaopt.config.checks import check_between_sections
from metaopt.config.learner import LearnerChoice, LearnerConfig, LearnerSection, ScheduleConfig
from metaopt.config.outer import EstimatorConfig, OptimizerConfig, OuterConfig, ValidationConfig
from metaopt.config.root import RootConfig
from metaopt.config.sections import Count, Fraction, Name, Section, check_range, check_trained_family, config_error

__all__ = [
    "ArtifactConfig",
    "AugmentationsConfig",
    "CheckpointConfig",
    "Config",
    "EstimatorConfig",
    "LearnerConfig",
    "OptimizerConfig",
    "OuterConfig",
    "ScheduleConfig",
    "TaskConfig",
    "ValidationConfig",
    "config_error",
]


class TaskConfig(Section):
    """Shards of one task family, always from its meta_train split; `horizon` is the closed range of inner steps of a run."""

    family: str
    shards: Count = 1
    horizon: tuple[Count, Count]

    @model_validator(mode="after")
    def _check(self) -> "TaskConfig":
        check_range(("horizon",), self.horizon)
        check_trained_family(("family",), self.family)
        return self


class CheckpointConfig(Section):
    """A commit every `every_steps` outer steps and at the end; the newest `keep_last` stay."""

    every_steps: Count = 5
    keep_last: Count = 3


class ArtifactConfig(Section):
    """What the artifact's card says: its name (null: the config's) and the schedule that users get with `total_steps`."""

    name: Name | None = None
    warmup_frac: Annotated[float, Field(ge=0, lt=1)] = 0.05
    final_lr_frac: Fraction = 0.0


class Config(RootConfig):
    """A whole meta-training run of an update rule or a schedule, resolved and checked; `hash` names its content."""

    learner: Annotated[LearnerSection, LearnerChoice()]
    tasks: Annotated[tuple[TaskConfig, ...], Field(min_length=1)]
    augmentations: AugmentationsConfig = AugmentationsConfig()
    outer: OuterConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig | None = None
    compile: bool = False
    precision: Literal["float32"] = "float32"
    artifact: ArtifactConfig = ArtifactConfig()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        check_between_sections(self)
        return self

    @property
    def artifact_name(self) -> str:
        """Name of the artifact: `artifact.name`, or the config's."""
        return self.artifact.name or self.name
