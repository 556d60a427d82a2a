"""Families `mnist1d_mlp` and `mnist1d_conv` (convolutions along one axis): sequences that stand in for digits."""

from metaopt.tasks.data.mnist1d import MNIST1D
from metaopt.tasks.families.images import classification

__all__ = ["MNIST1D_CONV", "MNIST1D_MLP"]

MNIST1D_MLP = classification("mnist1d_mlp", MNIST1D, "mlp")
MNIST1D_CONV = classification("mnist1d_conv", MNIST1D, "conv")
