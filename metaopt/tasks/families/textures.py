"""Families `textures_mlp` and `textures_conv`: patches of five textures."""

from metaopt.tasks.data.textures import TEXTURES
from metaopt.tasks.families.images import classification
from metaopt.tasks.sampling import Integers

__all__ = ["TEXTURES_CONV", "TEXTURES_MLP"]

TEXTURES_MLP = classification("textures_mlp", TEXTURES, "mlp", space={"depth": Integers(1, 3)})  # a linear classifier learns little here
TEXTURES_CONV = classification("textures_conv", TEXTURES, "conv")
