"""Whether a task lies inside what an artifact met in meta-training, by its card."""

from collections.abc import Mapping
from typing import Any

from metaopt.tasks import TaskSpec
from metaopt.tasks.support import Support, number_support, task_axes, template_support

__all__ = ["inside_support", "planning_horizon", "training_support"]

_WHOLE = ("horizon", "width", "depth", "batch", "activation", "init_scale")  # with the family, what "inside" means without an axis
_SLACK = 1e-9  # relative: ranges went through decimal text


def training_support(card: Mapping[str, Any]) -> Support:
    """Return axis -> [lowest, highest] or list of names that meta-training met, {} for a learner that was never meta-trained.

    What a card of an earlier version does not say follows from its templates, as long as all their families are installed, and from its
    augmentations. See `metaopt.tasks.support.task_axes` for the axes.
    """
    told: dict[str, list[Any]] = dict(card["training"].get("support", {}))
    scale, names = told.pop("reparametrisation", None), told.pop("augmentation", None)
    if "template" not in told or "loss_scale" in told:
        return told
    derived: Support = {**(template_support(told["template"]) or {}), **number_support([()])}
    if scale is not None:
        derived |= {"parameter_scale": [*scale], "augmentations": ["reparametrisation"]}
    if names is not None:
        derived["augmentations"] = [*names]
        if "bfloat16" in names:
            derived["precision"] = ["bfloat16", "float32"]
        if "gradient_noise" in names:
            del derived["gradient_noise"]  # earlier cards do not say how much
    return {**derived, **told}


def planning_horizon(card: Mapping[str, Any] | None) -> int | None:
    """Return how many inner steps ahead meta-training saw: the longest horizon, or the window of an estimator that does not see beyond it.

    None for a learner without a card, or that was never meta-trained.
    """
    training = {} if card is None else card["training"]
    if "planning_horizon" in training:
        return int(training["planning_horizon"])
    met = training.get("support", {}).get("horizon")
    return None if met is None else int(met[1])


def inside_support(card: Mapping[str, Any] | None, spec: TaskSpec, axis: str | None) -> bool | None:
    """Return whether a task lies inside an artifact's training support.

    Args:
        card: of the artifact; None for a learner without one.
        spec: the task, shifted or not.
        axis: only this one counts; None: the family is known, and horizon, width, depth, batch, activation and initial scale are inside,
            as far as the task has them.

    Returns:
        None where the card does not say, or the task has no such axis. False wins over None.
    """
    support = {} if card is None else training_support(card)
    if not support:
        return None
    values = task_axes(spec)
    if axis is not None:
        return _inside(support, axis, values[axis]) if axis in values else None
    answers = [_inside(support, name, values[name]) for name in ("family", *_WHOLE) if name in values]
    return False if False in answers else None if None in answers else True


def _inside(support: Support, axis: str, value: float | int | str) -> bool | None:
    if axis not in support:
        return None
    if isinstance(value, str):
        return value in support[axis]
    low, high = (float(end) for end in support[axis])
    return low - _SLACK * abs(low) <= value <= high + _SLACK * abs(high)
