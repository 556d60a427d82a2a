"""Drop-in optimizers and schedulers for PyTorch."""

from metaopt.optim.groups import embedding_groups, mu_groups
from metaopt.optim.hypergradient import HypergradientAdam, HypergradientAdamW, HypergradientLion, HypergradientRMSProp, HypergradientSGD
from metaopt.optim.learned import LearnedOptimizer
from metaopt.optim.learned_schedule import LearnedSchedule

__all__ = [
    "HypergradientAdam",
    "HypergradientAdamW",
    "HypergradientLion",
    "HypergradientRMSProp",
    "HypergradientSGD",
    "LearnedOptimizer",
    "LearnedSchedule",
    "embedding_groups",
    "mu_groups",
]
