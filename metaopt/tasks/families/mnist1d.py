"""Families `mnist1d_mlp` and `mnist1d_conv` (convolutions along one axis): sequences that stand in for digits."""

from metaopt.tasks.data.mnist1d import MNIST1D
from metaopt.tasks.families.images import classification
from metaopt.tasks.sampling import Integers

__all__ = ["MNIST1D_CONV", "MNIST1D_MLP"]

MNIST1D_MLP = classification("mnist1d_mlp", MNIST1D, "mlp", space={"depth": Integers(1, 3)})  # a linear classifier learns little here
MNIST1D_CONV = classification("mnist1d_conv", MNIST1D, "conv")
