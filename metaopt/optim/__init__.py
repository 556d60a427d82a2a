"""Drop-in optimizers for PyTorch."""

from metaopt.optim.groups import embedding_groups, mu_groups
from metaopt.optim.learned import LearnedOptimizer

__all__ = ["LearnedOptimizer", "embedding_groups", "mu_groups"]
