"""Augmentations: programs that change the inner problem a learner meets without changing what it means to solve it."""

from metaopt.tasks.augmentations.reparametrisation import Reparametrised, reparametrise

__all__ = ["Reparametrised", "reparametrise"]
