"""Families `mnist_mlp` and `mnist_conv`: five thousand digits of MNIST."""

from metaopt.tasks.data.mnist import MNIST
from metaopt.tasks.families.images import classification

__all__ = ["MNIST_CONV", "MNIST_MLP"]

MNIST_MLP = classification("mnist_mlp", MNIST, "mlp")
MNIST_CONV = classification("mnist_conv", MNIST, "conv")
