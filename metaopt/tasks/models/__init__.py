"""Inner models: frozen descriptions with `init` and `apply`, pure functions of a dict of tensors."""

from metaopt.tasks.models.conv import ConvNet
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.parts import ACTIVATIONS

__all__ = ["ACTIVATIONS", "MLP", "ConvNet"]
