"""Inner models: frozen descriptions with `init` and `apply`, pure functions of a dict of tensors."""

from metaopt.tasks.models.conv import ConvNet
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.parts import ACTIVATIONS, INITIALISERS, NORMS
from metaopt.tasks.models.residual import ResidualNet
from metaopt.tasks.models.vision_transformer import VisionTransformer

__all__ = ["ACTIVATIONS", "INITIALISERS", "MLP", "NORMS", "ConvNet", "ResidualNet", "VisionTransformer"]
