"""What a policy that sets hyperparameters during training sees: statistics that carry no units."""

from metaopt.learners.policies.cdf import END_WEIGHTS, CdfState, cdf_push, cdf_start
from metaopt.learners.policies.unitless import STATISTICS, StepMean, add_step, mean_statistics, start_mean, tensor_statistics

__all__ = [
    "END_WEIGHTS",
    "STATISTICS",
    "CdfState",
    "StepMean",
    "add_step",
    "cdf_push",
    "cdf_start",
    "mean_statistics",
    "start_mean",
    "tensor_statistics",
]
