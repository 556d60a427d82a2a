"""The augmentations by name, VeLO's choice of them, and how tasks get theirs."""

from collections.abc import Sequence

from metaopt.errors import ConfigError
from metaopt.names import nearest
from metaopt.tasks.augmentations.changed_gradients import DelayedGradients, GradientNoise, NormalisedGradients
from metaopt.tasks.augmentations.precision import Bfloat16
from metaopt.tasks.augmentations.reduced_batch import ReducedBatch
from metaopt.tasks.augmentations.reparametrisation import Reparametrisation
from metaopt.tasks.augmentations.sampled_gradients import EvolutionGradients, RandomDirections
from metaopt.tasks.augmentations.wrapper import Augmentation
from metaopt.tasks.sampling import Sampler
from metaopt.tasks.task import Task

__all__ = ["AUGMENTATIONS", "PRESETS", "augment", "settle"]

# In the order in which they wrap a program, the first one innermost: what changes the loss, then what takes its gradient (so that an ES
# perturbation has the size of the original weights), then what changes the variables, then what changes the gradient in those variables.
AUGMENTATIONS: dict[str, type[Augmentation]] = {
    kind.name: kind
    for kind in (
        ReducedBatch,
        Bfloat16,
        EvolutionGradients,
        Reparametrisation,
        RandomDirections,
        GradientNoise,
        NormalisedGradients,
        DelayedGradients,
    )
}

# Source: Metz et al., 2022, "VeLO: Training versatile learned optimizers by scaling up", appendix on task augmentation.
PRESETS: dict[str, tuple[Augmentation, ...]] = {
    "velo": (
        ReducedBatch(0.2),
        Bfloat16(0.2),
        EvolutionGradients(0.08),
        Reparametrisation(5 / 7, "any"),
        RandomDirections(0.08),
        NormalisedGradients(0.05),
        DelayedGradients(0.05),
    )
}


def settle(augmentations: Sequence[Augmentation], seed: int) -> tuple[Augmentation, ...]:
    """Return those of the augmentations that `seed` chooses, each by its probability, with their static choices drawn.

    A pure function of its arguments; augmentations are chosen independently of each other and of their order.
    """
    chosen = [a for a in augmentations if Sampler("augmentation", a.name, seed).uniform("chosen") < a.probability]
    return tuple(a.settle(seed) for a in chosen)


def augment(task: Task, augmentations: Sequence[str | Augmentation], seed: int) -> Task:
    """Return the task with every one of the augmentations, strengths (and static choices that are open) drawn from `seed`.

    A pure function of its arguments. Probabilities do not count here: see `settle`. The order of `augmentations` does not matter; they
    wrap the program in the order of `AUGMENTATIONS`.

    Args:
        task: a task that is not stacked.
        augmentations: names (with their default options) or augmentations with options.

    Raises:
        ConfigError: no augmentation of that name, or one twice.
        TaskError: one does not fit the task, or the task has it already.
    """
    options = [_named(a) if isinstance(a, str) else a for a in augmentations]
    names, order = [a.name for a in options], list(AUGMENTATIONS)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"augmentation {twice[0]!r} is given twice")
    for augmentation in sorted(options, key=lambda a: order.index(a.name) if a.name in order else len(order)):
        task = augmentation.apply(task, seed)
    return task


def _named(name: str) -> Augmentation:
    if name not in AUGMENTATIONS:
        raise ConfigError(f"augmentation {name!r} is unknown{nearest(name, AUGMENTATIONS)}")
    return AUGMENTATIONS[name]()
