"""The config of a hyperparameter policy: a root of its own, which the loader chooses by `learner.kind: policy`.

Its sections have the names of those of other learners where they mean the same, and are as strict. The hash of other configs does not know
that this one exists.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from metaopt.config.learner import POLICY, has_kind
from metaopt.config.root import RootConfig
from metaopt.config.schema import CheckpointConfig
from metaopt.config.sections import (
    Count,
    Decay,
    Fraction,
    Name,
    Natural,
    NonNegative,
    Positive,
    Section,
    check_range,
    check_trained_family,
    config_error,
)

__all__ = [
    "MissingConfig",
    "PPOSettings",
    "PolicyArtifactConfig",
    "PolicyConfig",
    "PolicyLearnerConfig",
    "PolicyOuterConfig",
    "PolicyStageConfig",
    "PolicyTaskConfig",
    "is_policy",
]

Knob = Literal["lr", "weight_decay", "epsilon", "one_minus_beta2", "one_minus_beta1", "clip_ratio", "clip_decay", "trust_decay"]
_KNOBS: tuple[Knob, ...] = (
    "lr",
    "weight_decay",
    "epsilon",
    "one_minus_beta2",
    "one_minus_beta1",
    "clip_ratio",
    "clip_decay",
    "trust_decay",
)
Inner = Literal["adamw", "unitless_adam"]


def is_policy(tree: Any) -> bool:
    """Return whether the plain values of a config are those of a policy."""
    learner = tree.get("learner") if isinstance(tree, dict) else None
    return isinstance(learner, dict) and has_kind(learner) and learner["kind"] == POLICY


class PolicyLearnerConfig(Section):
    """The network and what it decides about.

    `table` names the choices of each knob, `hidden` is the width of the trunk. `knobs` are those that are trained, the others are always
    masked. `inner` are the optimizers that it trains on, in equal parts.
    """

    kind: Literal["policy"]
    table: Literal["published", "wide"] = "wide"
    hidden: Annotated[int, Field(ge=1, le=8192)] = 256
    knobs: Annotated[tuple[Knob, ...], Field(min_length=1)] = _KNOBS
    registers: bool = True
    inner: Annotated[tuple[Inner, ...], Field(min_length=1)] = ("adamw", "unitless_adam")

    @model_validator(mode="after")
    def _check(self) -> "PolicyLearnerConfig":
        _check_unique("knobs", self.knobs)
        _check_unique("inner", self.inner)
        return self


class PolicyTaskConfig(Section):
    """A family of tasks, from its meta_train templates (null: all of them, or at most so many).

    `weight` is how often it is drawn, relative to the others; `horizon` is the closed range of inner steps of a run, log-uniform.
    """

    family: str
    weight: Positive = 1.0
    horizon: tuple[Count, Count]
    templates: Count | None = None

    @model_validator(mode="after")
    def _check(self) -> "PolicyTaskConfig":
        check_range(("horizon",), self.horizon)
        check_trained_family(("family",), self.family)
        return self


class MissingConfig(Section):
    """How often an episode lacks what a user may not have: an evaluation loss, registers, and each knob."""

    eval_loss: Fraction = 0.3
    registers: Fraction = 0.5
    knobs: Fraction = 0.1


class PolicyStageConfig(Section):
    """A stage of the curriculum: the families that it admits (null: all), and the most decisions an episode (null: those of the run).

    It ends once the mean reward of ten outer steps is above `until_reward` (null: never), or when `until_frac` of the steps are done. The
    last stage has neither.
    """

    families: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    most_decisions: Count | None = None
    until_reward: float | None = None
    until_frac: Annotated[float, Field(gt=0, lt=1)] | None = None


class PPOSettings(Section):
    """Constants of the update, of a config's and of any other.

    Attributes:
        clip: a ratio of probabilities outside 1 +- clip gets no more credit.
        entropy: weight of the entropy (nats, summed over heads) in the loss.
        lr: Adam's rate at the start; what counts afterwards is in the optimizer.
        betas: Adam's.
        max_grad_norm: the gradient of policy and critic together is shortened to it.
        value_coef: weight of the critic's squared error, in units of the returns' variance.
        gae_lambda: 0 trusts the critic, 1 the rewards.
        gamma: discount.
        epochs: passes over the episodes.
        batches: minibatches of a pass; fewer when there are fewer episodes.
        kl_stop: the first minibatch that finds the policy farther than this (mean approximate KL, nats) from the one that acted ends the
            update, without a step of its own; None: never.
    """

    clip: Positive = 0.2
    entropy: NonNegative = 1e-2
    lr: NonNegative = 2e-4
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    max_grad_norm: Positive = 5.0
    value_coef: NonNegative = 0.5
    gae_lambda: Fraction = 0.95
    gamma: Fraction = 1.0
    epochs: Count = 4
    batches: Count = 4
    kl_stop: Positive | None = None


class PolicyOuterConfig(Section):
    """The outer loop: `steps` times, collect episodes, update the policy.

    A group is `group_runs` episodes of one shape that are played together, on `template_tasks` fixed tasks of a template. A lock-step outer
    step plays `groups_per_step` groups with one policy, and every result is a function of the config. With `collection: async` workers
    never wait: groups are taken as they arrive until there are `decisions_per_step` decisions (null: `groups_per_step` groups); those of
    policies more than `max_staleness` outer steps old are dropped.

    `decisions` is the closed range of decisions an episode, log-uniform. A share `start_perturbation` of the runs begins at knobs away from
    their starts; learning rates stay at or below `highest_lr`. With `rescue`, a run whose loss is not finite gets one more decision to load
    a register. The reward is the logarithm of the budget that AdamW needs for the last loss, over the run's own: `against` AdamW at its
    default rate, or at the best of five constant ones.

    After `max_skipped` outer steps in a row without a usable update the run stops. `average_decay` is that of the running mean of policies
    that is exported. The rate of the update falls in a line to `final_lr_frac` of `ppo.lr`.
    """

    kind: Literal["ppo"] = "ppo"
    steps: Count
    groups_per_step: Count
    group_runs: Count
    decisions: tuple[Count, Count] = (2, 128)
    template_tasks: Count = 4
    threads_per_worker: Count = 1
    collection: Literal["lockstep", "async"] = "lockstep"
    decisions_per_step: Count | None = None
    max_staleness: Natural = 4
    max_skipped: Natural = 10
    average_decay: Fraction = 0.99
    final_lr_frac: Fraction = 1.0
    missing: MissingConfig = MissingConfig()
    start_perturbation: Fraction = 1.0
    highest_lr: Positive = 0.1
    rescue: bool = True
    against: Literal["default", "best_constant"] = "default"
    curriculum: tuple[PolicyStageConfig, ...] = ()
    ppo: PPOSettings = PPOSettings()

    @model_validator(mode="after")
    def _check(self) -> "PolicyOuterConfig":
        check_range(("decisions",), self.decisions)
        if self.collection == "lockstep" and self.decisions_per_step is not None:
            raise config_error(
                ("decisions_per_step",),
                f"must be null with collection lockstep, whose step is groups_per_step, got {self.decisions_per_step}",
            )
        before = 0.0
        for i, stage in enumerate(self.curriculum):
            place, last = ("curriculum", i), i == len(self.curriculum) - 1
            for name in ("until_reward", "until_frac") if last else ():
                if (value := getattr(stage, name)) is not None:
                    raise config_error((*place, name), f"must be null in the last stage, which ends with the run, got {value}")
            if last:
                break
            if stage.until_frac is None:
                raise config_error((*place, "until_frac"), "must be a number in (0, 1) in every stage but the last, got null")
            if stage.until_frac <= before:
                raise config_error((*place, "until_frac"), f"must be > {before}, that of the stage before, got {stage.until_frac}")
            before = stage.until_frac
        return self


class PolicyArtifactConfig(Section):
    """What the artifact's card says: its name (null: the config's)."""

    name: Name | None = None


class PolicyConfig(RootConfig):
    """The training of a hyperparameter policy, resolved and checked; `hash` names its content."""

    learner: PolicyLearnerConfig
    tasks: Annotated[tuple[PolicyTaskConfig, ...], Field(min_length=1)]
    outer: PolicyOuterConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    artifact: PolicyArtifactConfig = PolicyArtifactConfig()

    @model_validator(mode="after")
    def _check(self) -> "PolicyConfig":
        families = [task.family for task in self.tasks]
        for i, name in enumerate(families):
            if name in families[:i]:
                raise config_error(("tasks", i, "family"), f"must be named once, got {name!r} again: give it one weight and one horizon")
        for i, task in enumerate(self.tasks):
            if task.horizon[0] < self.outer.decisions[0]:
                least = self.outer.decisions[0]
                message = f"must be >= {least}, the least number of decisions an episode (outer.decisions.0), got {task.horizon[0]}"
                raise config_error(("tasks", i, "horizon", 0), message)
        for i, stage in enumerate(self.outer.curriculum):
            _check_stage(i, stage, families, self.outer.decisions)
        return self

    @property
    def artifact_name(self) -> str:
        """Name of the artifact: `artifact.name`, or the config's."""
        return self.artifact.name or self.name


def _check_stage(i: int, stage: PolicyStageConfig, families: list[str], decisions: tuple[int, int]) -> None:
    place = ("outer", "curriculum", i)
    for j, name in enumerate(stage.families or ()):
        if name not in families:
            raise config_error((*place, "families", j), f"must be one of the families of tasks ({', '.join(families)}), got {name!r}")
    if (most := stage.most_decisions) is not None and not decisions[0] <= most <= decisions[1]:
        message = f"must be from {decisions[0]} to {decisions[1]}, the decisions of the run (outer.decisions), got {most}"
        raise config_error((*place, "most_decisions"), message)


def _check_unique(key: str, names: tuple[str, ...]) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise config_error((key, i), f"must be named once, got {name!r} again")
