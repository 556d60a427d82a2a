"""Artifacts of learned schedules: the learner and its meta-parameters, or one line that says what the artifact is instead."""

import torch

from metaopt.artifacts.artifact import Artifact
from metaopt.errors import ConfigError, UnsafeArtifactError
from metaopt.learners.hypergradients.schedule import INTERFACE, ScheduledLearner, scheduled_learner
from metaopt.learners.update_rules import Theta

__all__ = ["is_schedule", "learned_schedule"]


def is_schedule(artifact: Artifact) -> bool:
    """Return whether the artifact is a learned schedule, of any version of the interface."""
    return str(artifact.card["interface"]).partition("/")[0] == INTERFACE.partition("/")[0]


def learned_schedule(artifact: Artifact) -> tuple[ScheduledLearner, Theta]:
    """Return the learner of a learned schedule and its theta, float32 as it was trained.

    Raises:
        ConfigError: the artifact is something else, of another version, or of a rule that is unknown here.
        UnsafeArtifactError: weights that do not fit the card, or are not finite.
    """
    card = artifact.card
    if not is_schedule(artifact):
        user = "PolicyScheduler" if card["kind"] == "policy" else "LearnedOptimizer"
        raise ConfigError(f"artifact {artifact.name!r} is of kind {card['kind']}, no learned schedule; run it with {user}")
    if card["interface"] != INTERFACE:
        raise ConfigError(f"artifact {artifact.name!r} has interface {card['interface']}, and {INTERFACE} is known here; upgrade metaopt")
    learner = scheduled_learner(card["rule"]["name"], **card["rule"]["options"])
    theta = {name: artifact.weights[name] for name in learner.learn if name in artifact.weights}  # in the order of the card
    for name in sorted({*learner.learn, *artifact.weights}):
        found = tuple(artifact.weights[name].shape) if name in artifact.weights else "none"
        expected = (learner.values,) if name in learner.learn else "none"
        if found != expected:
            raise UnsafeArtifactError(
                f"artifact {artifact.name!r}: weight {name!r} does not fit its card: expected {expected}, found {found}"
            )
        if not torch.isfinite(theta[name]).all():
            raise UnsafeArtifactError(f"artifact {artifact.name!r}: weight {name!r} is not finite")
    return learner, theta
