"""Augmentations: programs that change the inner problem a learner meets without changing what it means to solve it."""

from metaopt.tasks.augmentations.changed_gradients import DelayedGradients, GradientNoise, NormalisedGradients
from metaopt.tasks.augmentations.precision import Bfloat16
from metaopt.tasks.augmentations.reduced_batch import ReducedBatch
from metaopt.tasks.augmentations.registry import AUGMENTATIONS, PRESETS, augment, settle
from metaopt.tasks.augmentations.reparametrisation import Reparametrisation, Reparametrised, reparametrise
from metaopt.tasks.augmentations.sampled_gradients import EvolutionGradients, RandomDirections
from metaopt.tasks.augmentations.wrapper import Augmentation, Wrapper

__all__ = [
    "AUGMENTATIONS",
    "PRESETS",
    "Augmentation",
    "Bfloat16",
    "DelayedGradients",
    "EvolutionGradients",
    "GradientNoise",
    "NormalisedGradients",
    "RandomDirections",
    "ReducedBatch",
    "Reparametrisation",
    "Reparametrised",
    "Wrapper",
    "augment",
    "reparametrise",
    "settle",
]
