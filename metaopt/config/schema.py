"""What a meta-training config may say: one frozen model a section, with ranges, and the checks between sections.

Unknown keys are refused, integers and booleans are strict, floats are finite. Kinds (rules, estimators) are tagged unions of names, so that
a config can never name code to import.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from metaopt.config.options import Chosen

if TYPE_CHECKING:
    from metaopt.estimators import Recipe

__all__ = [
    "ArtifactConfig",
    "AugmentationsConfig",
    "CheckpointConfig",
    "Config",
    "EstimatorConfig",
    "LearnerConfig",
    "OptimizerConfig",
    "OuterConfig",
    "TaskConfig",
    "config_error",
]

# Names become parts of paths: no separators, no leading dot, no two dots in a row, a bounded length.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9](\.?[A-Za-z0-9_-])*\.?$", max_length=100)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Natural = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def config_error(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """Return an error about the field at `path` (relative to the model that raises it) that the loader reports with its place."""
    return PydanticCustomError("config", "{text}", {"text": message, "at": list(path)})


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def _learned_rules() -> dict[str, Any]:
    """Return the rules that have something to learn, by name."""
    from metaopt.learners.update_rules import CLASSIC, RULES

    return {name: RULES[name] for name in RULES if name not in CLASSIC}


class LearnerConfig(_Section):
    """An update rule by name; further keys are the rule's own options, the fields of its dataclass."""

    rule: str
    schedule: Literal["constant", "warmup_cosine"] = "constant"
    weight_decay: NonNegative = 0.0

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `learners.get(rule, **options)`."""
        return self.model_dump(exclude={"rule"})


class TaskConfig(_Section):
    """Shards of one task family, always from its meta_train split; `horizon` is the closed range of inner steps of a run."""

    family: str
    shards: Count = 1
    horizon: tuple[Count, Count]

    @model_validator(mode="after")
    def _check(self) -> "TaskConfig":
        from metaopt import tasks

        _check_range(("horizon",), self.horizon)
        if self.family not in tasks.names():
            raise PydanticCustomError("unknown_name", "", {"at": ["family"], "allowed": sorted(tasks.names())})
        if not tasks.get(self.family).templates("meta_train"):
            raise config_error(("family",), f"must have meta_train templates, got {self.family!r}, which is for evaluation only")
        return self


class AugmentationsConfig(_Section):
    """Changes to the tasks; `reparametrisation` is the closed range of the global scale s (w = s w'), null for none."""

    reparametrisation: tuple[Positive, Positive] | None = None

    @model_validator(mode="after")
    def _check(self) -> "AugmentationsConfig":
        if self.reparametrisation is not None:
            _check_range(("reparametrisation",), self.reparametrisation)
        return self


def _estimators() -> Mapping[str, Any]:
    from metaopt.estimators import ESTIMATORS

    return ESTIMATORS


class EstimatorConfig(_Section):
    """An estimator of the meta-gradient by name; further keys are the options of its recipe."""

    name: str

    @property
    def recipe(self) -> "Recipe":
        """The recipe that these options make."""
        recipe: Recipe = _estimators()[self.name](**self.model_dump(exclude={"name"}))
        return recipe


class OptimizerConfig(_Section):
    """The outer optimizer: warm-up over `warmup_steps`, then cosine down to `final_lr_frac` of `lr`; clips before the update."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: NonNegative
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    weight_decay: NonNegative = 0.0
    warmup_steps: Natural = 0
    final_lr_frac: Fraction = 1.0
    clip_norm: Positive | None = None
    clip_value: Positive | None = None


class OuterConfig(_Section):
    """The outer loop. `shards_per_step` is null for all; `max_skipped` non-finite steps in a row stop the run."""

    steps: Count
    shard_particles: Count
    shards_per_step: Count | None = None
    threads_per_worker: Count = 1
    estimator: Annotated[EstimatorConfig, Chosen("name", _estimators)]
    optimizer: OptimizerConfig
    max_skipped: Natural = 10


class CheckpointConfig(_Section):
    """A commit every `every_steps` outer steps and at the end; the newest `keep_last` stay."""

    every_steps: Count = 5
    keep_last: Count = 3


class ArtifactConfig(_Section):
    """What the artifact's card says: its name (null: the config's) and the schedule that users get with `total_steps`."""

    name: Name | None = None
    warmup_frac: Annotated[float, Field(ge=0, lt=1)] = 0.05
    final_lr_frac: Fraction = 0.0


class Config(_Section):
    """A whole meta-training run, resolved and checked; `hash` names its content."""

    name: Name
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    learner: Annotated[LearnerConfig, Chosen("rule", _learned_rules)]
    tasks: Annotated[tuple[TaskConfig, ...], Field(min_length=1)]
    augmentations: AugmentationsConfig = AugmentationsConfig()
    outer: OuterConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    compile: bool = False
    precision: Literal["float32"] = "float32"
    artifact: ArtifactConfig = ArtifactConfig()

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> "Config":
        shards = sum(task.shards for task in self.tasks)
        if (asked := self.outer.shards_per_step) is not None and asked > shards:
            raise config_error(("outer", "shards_per_step"), f"must be <= {shards}, the shards of all tasks, got {asked}")
        shortest = min(task.horizon[0] for task in self.tasks)
        if (window := self.outer.estimator.recipe.window) > shortest:
            raise config_error(("outer", "estimator", "window"), f"must be <= {shortest}, the shortest horizon of the tasks, got {window}")
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


def _check_range(path: tuple[str, ...], bounds: tuple[float, float]) -> None:
    if bounds[0] > bounds[1]:
        raise config_error(path, f"must be [low, high] with low <= high, got [{bounds[0]}, {bounds[1]}]")


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
