"""Hypergradients: hyperparameters that are learned while training runs."""

from metaopt.learners.hypergradients.learner import PRESETS, HypergradientLearner
from metaopt.learners.hypergradients.links import LINKS, Link
from metaopt.learners.hypergradients.options import BASES, PARTS, build_tower, default_rate
from metaopt.learners.hypergradients.towers import Learned, Tower, TowerState, signal

__all__ = [
    "BASES",
    "LINKS",
    "PARTS",
    "PRESETS",
    "HypergradientLearner",
    "Learned",
    "Link",
    "Tower",
    "TowerState",
    "build_tower",
    "default_rate",
    "signal",
]
