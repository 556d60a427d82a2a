"""Drop-in optimizers for PyTorch."""

from metaopt.optim.learned import LearnedOptimizer

__all__ = ["LearnedOptimizer"]
