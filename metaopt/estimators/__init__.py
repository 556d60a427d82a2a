"""Estimators of meta-gradients, on one protocol: `estimate(theta, outer_step) -> MetaGradient`."""

from metaopt.estimators.evolution import ESTIMATORS, Evolution, MetaGradient
from metaopt.estimators.flat import flatten, unflatten

__all__ = ["ESTIMATORS", "Evolution", "MetaGradient", "flatten", "unflatten"]
