"""Hypergradients: derivatives of an outer loss with respect to the hyperparameters of an inner run, by five methods behind one call."""

from metaopt.estimators.hypergradients.facade import METHODS, hypergradient, table
from metaopt.estimators.hypergradients.forward import DiscountedForward, ForwardShared
from metaopt.estimators.hypergradients.gradient_step import GradientStep, gradient_step
from metaopt.estimators.hypergradients.implicit import Implicit
from metaopt.estimators.hypergradients.recipe import HypergradientRecipe, Memory
from metaopt.estimators.hypergradients.reverse import OneStep, Unrolled

__all__ = [
    "METHODS",
    "DiscountedForward",
    "ForwardShared",
    "GradientStep",
    "HypergradientRecipe",
    "Implicit",
    "Memory",
    "OneStep",
    "Unrolled",
    "gradient_step",
    "hypergradient",
    "table",
]
