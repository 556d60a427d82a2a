"""Estimators of meta-gradients, on one protocol: `estimate(theta, outer_step) -> MetaGradient`."""

from metaopt.estimators.estimator import Estimator, MetaGradient, Recipe
from metaopt.estimators.evolution import PES, Evolution, FullES, TruncatedES
from metaopt.estimators.flat import flatten, unflatten
from metaopt.registry import Registry

__all__ = ["ESTIMATORS", "Estimator", "Evolution", "MetaGradient", "Recipe", "flatten", "unflatten"]

_BUNDLED: tuple[type[Recipe], ...] = (PES, TruncatedES, FullES)
ESTIMATORS: Registry[type[Recipe]] = Registry("estimator", "metaopt.estimators", {str(recipe.name): recipe for recipe in _BUNDLED})
