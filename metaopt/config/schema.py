"""What a meta-training config may say: one frozen model a section, with ranges, and the checks between sections.

Unknown keys are refused, integers and booleans are strict, floats are finite. Kinds (rules, estimators) are tagged unions of names, so that
a config can never name code to import.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from metaopt.config.augmentations import AugmentationsConfig
from metaopt.config.checks import check_between_sections
from metaopt.config.learner import LearnerChoice, LearnerConfig, LearnerSection, ScheduleConfig
from metaopt.config.outer import EstimatorConfig, OptimizerConfig, OuterConfig, ValidationConfig
from metaopt.config.sections import Count, Fraction, Name, Section, check_range, config_error

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
        from metaopt import tasks

        check_range(("horizon",), self.horizon)
        if self.family not in tasks.names():
            raise PydanticCustomError("unknown_name", "", {"at": ["family"], "allowed": sorted(tasks.names())})
        if not tasks.get(self.family).templates("meta_train"):
            raise config_error(("family",), f"must have meta_train templates, got {self.family!r}, which is for evaluation only")
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


class Config(Section):
    """A whole meta-training run, resolved and checked; `hash` names its content."""

    name: Name
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    learner: Annotated[LearnerSection, LearnerChoice()]
    tasks: Annotated[tuple[TaskConfig, ...], Field(min_length=1)]
    augmentations: AugmentationsConfig = AugmentationsConfig()
    outer: OuterConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig | None = None
    compile: bool = False
    precision: Literal["float32"] = "float32"
    artifact: ArtifactConfig = ArtifactConfig()

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> "Config":
        check_between_sections(self)
        return self

    @property
    def artifact_name(self) -> str:
        """Name of the artifact: `artifact.name`, or the config's."""
        return self.artifact.name or self.name

    @property
    def hash(self) -> str:
        """Thirty-two hex digits of the resolved content; origins and formatting do not count."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_yaml(self) -> str:
        """Return the resolved config as YAML that loads back to the same `hash`, each value with its origin as a comment."""
        return "".join(f"{line}\n" for line in _dump(self.model_dump(mode="json"), (), self._origins))


def _dump(value: Any, path: tuple[str | int, ...], origins: dict[str, str]) -> list[str]:
    """Return the lines of a mapping or of a list of mappings, two spaces a level."""
    lines: list[str] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        head = f"{key}:" if isinstance(value, dict) else "-"
        nested = isinstance(child, dict) or (isinstance(child, list) and any(isinstance(part, dict) for part in child))
        if not nested:  # JSON spells scalars and lists of scalars as YAML's flow style does
            origin = origins.get(".".join(map(str, (*path, key))), "default")
            lines.append(f"{head} {json.dumps(child)}  # {origin}")
            continue
        body = _dump(child, (*path, key), origins)
        if isinstance(value, dict):
            lines += [head, *(f"  {line}" for line in body)]
        else:
            lines += [f"- {body[0]}", *(f"  {line}" for line in body[1:])]
    return lines
