"""What a drop-in optimizer runs: a rule, its meta-parameters and its own step size, from an artifact or a bare rule."""

import os
from dataclasses import dataclass

from metaopt.artifacts import Artifact, load
from metaopt.artifacts.schedule import is_schedule
from metaopt.errors import ConfigError, UnsafeArtifactError
from metaopt.learners import Schedule, rule_of
from metaopt.learners.update_rules import ModelRule, Theta, UpdateRule, is_model_rule

__all__ = ["Source", "resolve"]


@dataclass(frozen=True)
class Source:
    """A rule ready to run.

    Attributes:
        rule, theta: the rule, of one tensor or of all, and its meta-parameters, on the CPU.
        base_step: step size at lr = 1: the card's base_lr times the rule's own.
        schedule: used when the length of the run is known; None for a rule that needs none.
        identity: tells checkpoints of different artifacts apart.
        needs_loss, needs_total_steps: what the rule reads besides gradients.
    """

    rule: UpdateRule | ModelRule
    theta: Theta
    base_step: float
    schedule: Schedule | None
    identity: str
    needs_loss: bool = False
    needs_total_steps: bool = False


def resolve(artifact: str | os.PathLike[str] | Artifact | UpdateRule | ModelRule) -> Source:
    """Return the source that a path, a name, an artifact or a bare rule (with its initial meta-parameters) stands for.

    Raises:
        ConfigError: an artifact of another kind, or one whose rule is unknown here.
        UnsafeArtifactError: a damaged artifact, or weights that do not fit the rule.
    """
    if isinstance(artifact, str | os.PathLike):
        artifact = load(artifact)
    if not isinstance(artifact, Artifact):
        theta = artifact.init_theta(0)
        return Source(artifact, theta, _step_size(artifact, theta), None, artifact.name, *_needs(artifact))
    card, theta = artifact.card, dict(artifact.weights)
    if is_schedule(artifact):
        raise ConfigError(
            f"artifact {artifact.name!r} is a learned schedule; run it with LearnedSchedule(optimizer, artifact, total_steps)"
        )
    if card["kind"] == "policy":
        raise ConfigError(f"artifact {artifact.name!r} is a policy; run it with PolicyScheduler(optimizer, artifact, total_steps)")
    if card["kind"] != "update_rule":
        raise ConfigError(f"artifact {artifact.name!r} is of kind {card['kind']}; LearnedOptimizer runs kind update_rule")
    rule = rule_of(card["rule"]["name"], **card["rule"]["options"])
    _check_fit(artifact.name, rule, theta)
    needs_loss, needs_horizon = _needs(rule)
    base_lr, default = card["step"]["base_lr"], card["step"]["default_schedule"]
    return Source(
        rule,
        theta,
        base_lr * _step_size(rule, theta),
        Schedule(**default) if default else None,
        f"{artifact.name}@{artifact.fingerprint}",
        needs_loss=needs_loss or card["limits"].get("needs_loss", False),
        needs_total_steps=needs_horizon or card["limits"].get("needs_total_steps", False),
    )


def _step_size(rule: UpdateRule | ModelRule, theta: Theta) -> float:
    return float(theta["lr"] if "lr" in theta else rule.hyperparameters["lr"])


def _needs(rule: UpdateRule | ModelRule) -> tuple[bool, bool]:
    """Return whether a rule reads the loss, and the length of the run; update rules see gradients only."""
    return (rule.needs_loss, rule.needs_horizon) if is_model_rule(rule) else (False, False)


def _check_fit(name: str, rule: UpdateRule | ModelRule, theta: Theta) -> None:
    expected = {key: tuple(value.shape) for key, value in rule.init_theta(0).items()}
    found = {key: tuple(value.shape) for key, value in theta.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            shapes = f"expected {expected.get(key, 'none')}, found {found.get(key, 'none')}"
            raise UnsafeArtifactError(f"artifact {name!r}: weight {key!r} does not fit rule {rule.name}: {shapes}")
