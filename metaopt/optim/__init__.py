"""Drop-in optimizers and schedulers for PyTorch."""

from metaopt.optim.by_rule import Celo, LSTMOptimizer, VeLO
from metaopt.optim.groups import embedding_groups, mu_groups
from metaopt.optim.hypergradient import HypergradientAdam, HypergradientAdamW, HypergradientLion, HypergradientRMSProp, HypergradientSGD
from metaopt.optim.learned import LearnedOptimizer
from metaopt.optim.learned_schedule import LearnedSchedule
from metaopt.optim.policy_scheduler import PolicyScheduler
from metaopt.optim.unitless_adam import UnitlessAdam

__all__ = [
    "Celo",
    "HypergradientAdam",
    "HypergradientAdamW",
    "HypergradientLion",
    "HypergradientRMSProp",
    "HypergradientSGD",
    "LSTMOptimizer",
    "LearnedOptimizer",
    "LearnedSchedule",
    "PolicyScheduler",
    "UnitlessAdam",
    "VeLO",
    "embedding_groups",
    "mu_groups",
]
