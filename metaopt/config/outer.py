"""The outer loop's part of a config: estimator, optimizer, phases, curriculum, average, and meta-validation."""

from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from metaopt.config.options import Chosen
from metaopt.config.sections import Count, Decay, Fraction, Natural, NonNegative, Positive, Section, check_range, config_error

if TYPE_CHECKING:
    from metaopt.estimators import Recipe
    from metaopt.learners import Learner

__all__ = [
    "AverageConfig",
    "EstimatorConfig",
    "ImitationConfig",
    "OptimizerConfig",
    "OuterConfig",
    "PhaseConfig",
    "StageConfig",
    "ValidationConfig",
]


def _estimators() -> Mapping[str, Any]:
    from metaopt.estimators import ESTIMATORS

    return ESTIMATORS


def _hand_made() -> Mapping[str, Any]:
    from metaopt.learners.update_rules import CLASSIC

    return CLASSIC


class EstimatorConfig(Section):
    """An estimator of the meta-gradient by name; further keys are the options of its recipe."""

    name: str

    @property
    def recipe(self) -> "Recipe":
        """The recipe that these options make."""
        recipe: Recipe = _estimators()[self.name](**self.model_dump(exclude={"name"}))
        return recipe


class OptimizerConfig(Section):
    """The outer optimizer: warm-up over `warmup_steps`, then cosine down to `final_lr_frac` of `lr`; clips before the update."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: NonNegative
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    weight_decay: NonNegative = 0.0
    warmup_steps: Natural = 0
    final_lr_frac: Fraction = 1.0
    clip_norm: Positive | None = None
    clip_value: Positive | None = None


class ImitationConfig(Section):
    """A hand-made rule whose runs a phase imitates, and its schedule over a run; further keys are its hyperparameters."""

    rule: str
    schedule: Literal["constant", "warmup_cosine"] = "constant"

    def build(self) -> "Learner":
        """Return the learner that leads."""
        from metaopt import learners

        return learners.get(self.rule, **self.model_dump(exclude={"rule"}))


class _Imitated(Chosen):
    """Marks the field of a rule to imitate, which may be null."""

    def __init__(self) -> None:
        super().__init__("rule", _hand_made)

    def section(self, base: type[BaseModel], value: Any) -> Any:
        return None if value is None else super().section(ImitationConfig, value)

    def model(self, base: type[BaseModel], value: Any) -> type[BaseModel] | None:
        return super().model(ImitationConfig, value)


class PhaseConfig(Section):
    """A part of the run with its own trainable entries of theta (patterns like `w*`), step size and horizons (null: those of the run).

    With `imitate: {rule: adam, lr: 1e-2}` its inner runs are those of that rule, and the meta-loss is how far the learner's steps are from
    the rule's: |difference|^2 over |the rule's step|^2. Meta-validation is the same in every phase.

    It gets `share` of the outer steps, relative to the shares of the other phases, and begins with a fresh outer optimizer, its own warm-up
    and cosine, and fresh inner runs. What it does not train keeps every bit.
    """

    share: Positive = 1.0
    train: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)
    lr: NonNegative | None = None
    horizon: tuple[Count, Count] | None = None
    imitate: Annotated[ImitationConfig | None, _Imitated()] = None

    @model_validator(mode="after")
    def _check(self) -> "PhaseConfig":
        if self.horizon is not None:
            check_range(("horizon",), self.horizon)
        return self


class StageConfig(Section):
    """A stage of the curriculum, from `from_frac` of the outer steps on.

    Inner runs that begin in it have at most `horizon_frac` of the longest horizon; only shards of the cheapest `template_frac` of the
    templates work.
    """

    from_frac: Annotated[float, Field(ge=0, lt=1)]
    horizon_frac: Annotated[float, Field(gt=0, le=1)] = 1.0
    template_frac: Annotated[float, Field(gt=0, le=1)] = 1.0


class AverageConfig(Section):
    """The running mean of theta over the outer steps, from `start_frac` of each phase on: weights decay^age; 1 is the uniform mean."""

    decay: Fraction = 0.98
    start_frac: Annotated[float, Field(ge=0, lt=1)] = 0.0


class OuterConfig(Section):
    """The outer loop. `shards_per_step` is null for all; `max_skipped` non-finite steps in a row stop the run.

    `mixing` says what `shards_per_step` makes equal: how often each shard works, the inner steps of families, or their computing time. The
    last needs `costs`, of one estimate by family, in any unit (null: measured when the run begins, and kept).
    """

    steps: Count
    shard_particles: Count
    shards_per_step: Count | None = None
    threads_per_worker: Count = 1
    estimator: Annotated[EstimatorConfig, Chosen("name", _estimators)]
    optimizer: OptimizerConfig
    max_skipped: Natural = 10
    phases: tuple[PhaseConfig, ...] = ()
    curriculum: tuple[StageConfig, ...] = ()
    average: AverageConfig | None = None
    mixing: Literal["equal_shards", "equal_steps", "equal_time"] = "equal_shards"
    costs: dict[str, Positive] | None = None

    @property
    def borders(self) -> tuple[int, ...]:
        """The outer step after the last one of each phase; without phases, that of the run."""
        shares = [phase.share for phase in self.phases] or [1.0]
        return tuple(round(self.steps * part / sum(shares)) for part in accumulate(shares))

    def stage_at(self, step: int) -> int:
        """Return the number of the curriculum's stage at outer step `step`; 0 without a curriculum."""
        return max((i for i, stage in enumerate(self.curriculum) if stage.from_frac * self.steps <= step), default=0)

    @model_validator(mode="after")
    def _check(self) -> "OuterConfig":
        before = 0
        for i, border in enumerate(self.borders):
            if border == before:
                raise config_error(("phases", i, "share"), f"must give the phase a step of the {self.steps}, got {self.phases[i].share}")
            before = border
        last = -1.0
        for i, stage in enumerate(self.curriculum):
            if i == 0 and stage.from_frac != 0:
                raise config_error(("curriculum", 0, "from_frac"), f"must be 0 in the first stage, got {stage.from_frac}")
            if stage.from_frac <= last:
                raise config_error(("curriculum", i, "from_frac"), f"must be > {last}, that of the stage before, got {stage.from_frac}")
            last = stage.from_frac
        if self.mixing != "equal_shards" and self.shards_per_step is None:
            raise config_error(("mixing",), f"must be equal_shards while outer.shards_per_step is null (all work), got {self.mixing!r}")
        if self.costs is not None and self.mixing != "equal_time":
            raise config_error(("costs",), f"must be null unless outer.mixing is equal_time, got it with {self.mixing!r}")
        return self


class ValidationConfig(Section):
    """Meta-validation every `every_steps` outer steps on fixed particles of `meta_valid` templates; the best theta becomes the artifact.

    `objective` is the loss on held-out examples along the run, or the meta-loss as trained on. `tasks` are families (null: those of the
    run), `max_templates` of each (null: all), run for `horizon` steps (null: the longest of the run). After `patience` validations without
    an improvement beyond its standard error the run ends (null: never).
    """

    every_steps: Count
    objective: Literal["heldout", "train"] = "heldout"
    particles: Annotated[int, Field(ge=2, le=10**6)] = 4
    max_templates: Count | None = None
    horizon: Count | None = None
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    patience: Count | None = None
