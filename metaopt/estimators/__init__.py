"""Estimators of meta-gradients, on one protocol: `estimate(theta, outer_step) -> MetaGradient`."""

from metaopt.estimators.estimator import Estimator, MetaGradient, Recipe
from metaopt.estimators.evolution import PES, Evolution, FullES, TruncatedES
from metaopt.estimators.flat import flatten, unflatten

__all__ = ["ESTIMATORS", "Estimator", "Evolution", "MetaGradient", "Recipe", "flatten", "unflatten"]

ESTIMATORS: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in (PES, TruncatedES, FullES)}
