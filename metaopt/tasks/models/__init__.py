"""Inner models: frozen descriptions with `init` and `apply`, pure functions of a dict of tensors."""

from metaopt.tasks.models.autoencoder import Autoencoder, VariationalAutoencoder
from metaopt.tasks.models.conv import ConvNet
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.parts import ACTIVATIONS, INITIALISERS, NORMS
from metaopt.tasks.models.recurrent import CELLS, RecurrentNet
from metaopt.tasks.models.residual import ResidualNet
from metaopt.tasks.models.small_head import SmallHead
from metaopt.tasks.models.transformer import Transformer
from metaopt.tasks.models.unrolled_rule import UnrolledRule
from metaopt.tasks.models.vision_transformer import VisionTransformer

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "INITIALISERS",
    "MLP",
    "NORMS",
    "Autoencoder",
    "ConvNet",
    "RecurrentNet",
    "ResidualNet",
    "SmallHead",
    "Transformer",
    "UnrolledRule",
    "VariationalAutoencoder",
    "VisionTransformer",
]
