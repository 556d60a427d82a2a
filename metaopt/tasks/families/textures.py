"""Families `textures_mlp` and `textures_conv`: patches of five textures."""

from metaopt.tasks.data.textures import TEXTURES
from metaopt.tasks.families.images import classification

__all__ = ["TEXTURES_CONV", "TEXTURES_MLP"]

TEXTURES_MLP = classification("textures_mlp", TEXTURES, "mlp")
TEXTURES_CONV = classification("textures_conv", TEXTURES, "conv")
