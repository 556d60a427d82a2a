"""Meta-train learned optimizers, keep them as artifacts, use them in PyTorch.

Names are resolved on first use (PEP 562), so `import metaopt` pulls in neither ray, gymnasium, stable_baselines3, matplotlib nor higher.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from metaopt.version import __version__

if TYPE_CHECKING:
    from metaopt import artifacts, config, errors, learners, optim, tasks, testing
    from metaopt.api import evaluate, train
    from metaopt.artifacts import Artifact, load
    from metaopt.estimators.hypergradients import hypergradient

_MODULES = ("artifacts", "config", "errors", "learners", "optim", "tasks", "testing")
_ATTRIBUTES = {
    "Artifact": "metaopt.artifacts",
    "evaluate": "metaopt.api",
    "hypergradient": "metaopt.estimators.hypergradients",
    "load": "metaopt.artifacts",
    "train": "metaopt.api",
}

__all__ = [
    "Artifact",
    "__version__",
    "artifacts",
    "config",
    "errors",
    "evaluate",
    "hypergradient",
    "learners",
    "load",
    "optim",
    "tasks",
    "testing",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"metaopt.{name}")
    if name in _ATTRIBUTES:
        value = getattr(import_module(_ATTRIBUTES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'metaopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
