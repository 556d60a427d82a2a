"""Artifacts of hyperparameter policies: the network with its frozen normaliser, or one line that says what the artifact is instead.

The card's `rule.options` are the fields of a `PolicySpec`, its `features` the names of the inputs in their order, and `limits.max_lr`, if
it is there, the highest learning rate that the policy may set. The weights are the network's state dict, with the normaliser's buffers.
"""

import dataclasses
import math
import os
from typing import Any

import torch

from metaopt import seeds
from metaopt.artifacts.artifact import Artifact, load
from metaopt.artifacts.card import new_card
from metaopt.errors import ConfigError, UnsafeArtifactError
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec
from metaopt.learners.policies.observation import NAMES
from metaopt.learners.update_rules.options import checked_options

__all__ = ["INTERFACE", "KIND", "find_policy", "is_policy", "load_policy", "policy_artifact"]

KIND = "policy"
INTERFACE = "hyperparameter_policy/1"
_RULE = "hyperparameter_policy"


def is_policy(artifact: Artifact) -> bool:
    """Return whether the artifact is a hyperparameter policy, of any version of the interface."""
    return str(artifact.card["interface"]).partition("/")[0] == INTERFACE.partition("/")[0]


def policy_artifact(name: str, network: PolicyNetwork, **fields: Any) -> Artifact:
    """Return the artifact of a policy's network as it is now; `fields` are further keys of the card, as for `new_card`."""
    assert isinstance(network.spec, PolicySpec), "a network for another environment is no hyperparameter policy"
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(network.spec).items()}
    card = new_card(name, _RULE, options=options, kind=KIND, interface=INTERFACE, features=list(NAMES), **fields)
    return Artifact(card, {key: value.detach().clone() for key, value in network.state_dict().items()})


def find_policy(name_or_path: str | os.PathLike[str] | Artifact) -> Artifact:
    """Return the artifact of a name, a path, or the artifact itself, if it is a policy of this interface.

    Raises:
        ConfigError: something else, with what runs it, or a zip.
        UnsafeArtifactError: an unknown name or a damaged artifact.
    """
    if not isinstance(name_or_path, Artifact):
        if os.fspath(name_or_path).lower().endswith(".zip"):
            what = "is a zip archive, and those of Stable-Baselines3 run code when they are read"
            raise ConfigError(f"artifact {os.fspath(name_or_path)!r} {what}; give the folder of a policy artifact")
        name_or_path = load(name_or_path)
    artifact, card = name_or_path, name_or_path.card
    if not is_policy(artifact):
        user = "LearnedSchedule" if card["interface"].startswith("learned_schedule/") else "LearnedOptimizer"
        raise ConfigError(f"artifact {artifact.name!r} is of kind {card['kind']}, no policy; run it with {user}")
    if card["interface"] != INTERFACE:
        raise ConfigError(f"artifact {artifact.name!r} has interface {card['interface']}, and {INTERFACE} is known here; upgrade metaopt")
    return artifact


def load_policy(name_or_path: str | os.PathLike[str] | Artifact) -> PolicyNetwork:
    """Return the network of a policy, in evaluation mode and without gradients, on the CPU.

    Raises:
        ConfigError: as `find_policy`, or inputs or options of another version.
        UnsafeArtifactError: an unknown name, a damaged artifact, or weights that do not fit the card or are not finite.
    """
    artifact = find_policy(name_or_path)
    spec = PolicySpec(**checked_options(_RULE, PolicySpec, artifact.card["rule"]["options"]))
    if tuple(artifact.card["features"]) != NAMES or spec.inputs != len(NAMES):
        raise ConfigError(f"artifact {artifact.name!r} reads other inputs than are measured here; use the version of metaopt that made it")
    _check_size(artifact, spec)
    network = PolicyNetwork(spec, seeds.key(_RULE, 0))
    expected = network.state_dict()
    for name in sorted(expected.keys() | artifact.weights.keys()):
        wanted, found = (_shape(weights.get(name)) for weights in (expected, artifact.weights))
        if wanted != found:
            raise UnsafeArtifactError(
                f"artifact {artifact.name!r}: weight {name!r} does not fit its card: expected {wanted}, found {found}"
            )
        if not torch.isfinite(artifact.weights[name]).all():
            raise UnsafeArtifactError(f"artifact {artifact.name!r}: weight {name!r} is not finite")
    network.load_state_dict(dict(artifact.weights))
    return network.eval().requires_grad_(False)


def _check_size(artifact: Artifact, spec: PolicySpec) -> None:
    """Refuse a network that is larger than its weights could fill, before it takes any memory."""
    total = sum(value.numel() for value in artifact.weights.values())
    if spec.hidden > math.isqrt(total):  # one of its matrices is [4 hidden, hidden]
        raise UnsafeArtifactError(f"artifact {artifact.name!r}: hidden={spec.hidden} does not fit its {total} weights")


def _shape(weight: torch.Tensor | None) -> str:
    return "none" if weight is None else f"{str(weight.dtype).removeprefix('torch.')} {tuple(weight.shape)}"
