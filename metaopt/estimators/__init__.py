"""Estimators of meta-gradients, on one protocol: `estimate(theta, outer_step) -> MetaGradient`."""

from metaopt.estimators.backprop import FullBackprop, TruncatedBackprop
from metaopt.estimators.estimator import Estimator, MetaGradient, Recipe
from metaopt.estimators.evolution import PES, Evolution, FullES, TruncatedES
from metaopt.estimators.flat import flatten, unflatten
from metaopt.estimators.forward import ForwardMode
from metaopt.estimators.noise_reuse import GPES, NRES, ESSingle
from metaopt.estimators.uoro import UORO
from metaopt.registry import Registry

__all__ = [
    "ESTIMATORS",
    "GPES",
    "NRES",
    "PES",
    "UORO",
    "ESSingle",
    "Estimator",
    "Evolution",
    "ForwardMode",
    "FullBackprop",
    "FullES",
    "MetaGradient",
    "Recipe",
    "TruncatedBackprop",
    "TruncatedES",
    "flatten",
    "unflatten",
]

_BUNDLED: tuple[type[Recipe], ...] = (
    NRES,
    PES,
    GPES,
    ESSingle,
    TruncatedES,
    FullES,
    TruncatedBackprop,
    FullBackprop,
    ForwardMode,
    UORO,
)
ESTIMATORS: Registry[type[Recipe]] = Registry("estimator", "metaopt.estimators", {str(recipe.name): recipe for recipe in _BUNDLED})
