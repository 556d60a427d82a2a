"""Families `faces_mlp` and `faces_conv`: faces against backgrounds."""

from metaopt.tasks.data.faces import FACES
from metaopt.tasks.families.images import classification

__all__ = ["FACES_CONV", "FACES_MLP"]

FACES_MLP = classification("faces_mlp", FACES, "mlp")
FACES_CONV = classification("faces_conv", FACES, "conv")
