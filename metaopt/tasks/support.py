"""Where a task stands on every axis, and what a set of training tasks covers: the support of a meta-training, axis by axis."""

from collections.abc import Collection, Iterable, Sequence

from metaopt.tasks.augmentations import Augmentation, Bfloat16, GradientNoise, Reparametrisation
from metaopt.tasks.families.shape_axes import axis_values
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.number_shifts import PREFIX
from metaopt.tasks.registry import get, names
from metaopt.tasks.task import TaskSpec

__all__ = ["Support", "number_support", "task_axes", "template_support"]

Support = dict[str, list[float | int | str]]  # axis -> [low, high], or names in alphabetical order

_NUMBERS = ("loss_scale", "parameter_scale", "gradient_noise", "precision")
_ARCHITECTURES = {
    "MLP": "mlp",
    "SmallHead": "mlp",
    "ConvNet": "conv",
    "ResidualNet": "resnet",
    "VisionTransformer": "vit",
    "VariationalAutoencoder": "vae",
}


def task_axes(spec: TaskSpec) -> dict[str, float | int | str]:
    """Return axis -> value of a task; of a family that is not installed, only what its spec tells.

    `family`, `template` (as FAMILY/TEMPLATE), `horizon`, `loss_scale`, `parameter_scale`, `gradient_noise` (0 without) and `precision` are
    always there; `init_scale`, `data` (name of the data set), `architecture`, `width`, `depth`, `batch` and `activation` where the task has
    them. A family without data and model counts as data and architecture of its own.

    Raises:
        TaskError: the family has no such template.
    """
    found: dict[str, float | int | str] = {
        "family": spec.family,
        "template": f"{spec.family}/{spec.template}",
        "horizon": spec.horizon,
        "loss_scale": 1.0,
        "parameter_scale": 1.0,
        "gradient_noise": 0.0,
        "precision": "float32",
    }
    found |= {axis: spec.values[f"{PREFIX}{axis}"] for axis in _NUMBERS if f"{PREFIX}{axis}" in spec.values}
    if "init_scale" in spec.values:
        found["init_scale"] = spec.values["init_scale"]
    return found | (_shape_axes(spec) if spec.family in names() else {})


def template_support(templates: Iterable[str]) -> Support | None:
    """Return the axes that templates of `meta_train` settle, as FAMILY/TEMPLATE each; None if one is not known here.

    They are `family`, `template`, `width`, `depth`, `batch`, `activation`, `data`, `architecture` and `init_scale` (the range of the
    families' draws), where any template has them.
    """
    met = []
    for full in templates:
        name, _, template = full.partition("/")
        if name not in names() or template not in (family := get(name)).templates("meta_train"):
            return None
        axes = task_axes(family.sample(template, 0, (1, 1)))
        met.append({axis: axes[axis] for axis in axes if axis not in ("horizon", "init_scale", *_NUMBERS)})
        if isinstance(family, ShapedFamily):
            met.extend({"init_scale": end} for end in family.init_scale)
    return _covered(met)


def number_support(augmentations: Iterable[Sequence[Augmentation]]) -> Support:
    """Return what training sources cover of `loss_scale`, `parameter_scale`, `gradient_noise`, `precision`, and their `augmentations`.

    Args:
        augmentations: of each source, at least one.
    """
    met: list[dict[str, float | int | str]] = []
    for chosen in augmentations:
        by_type = {type(one): one for one in chosen}
        scale, noise = by_type.get(Reparametrisation), by_type.get(GradientNoise)
        scales = scale.scale if isinstance(scale, Reparametrisation) else (1.0, 1.0)
        levels = noise.level if isinstance(noise, GradientNoise) else (0.0, 0.0)
        precision = "bfloat16" if Bfloat16 in by_type else "float32"
        ends = zip(scales, levels, strict=True)
        met.extend({"loss_scale": 1.0, "parameter_scale": s, "gradient_noise": n, "precision": precision} for s, n in ends)
        met.extend({"augmentations": one.name} for one in chosen)
    return {"augmentations": [], **_covered(met)}


def _shape_axes(spec: TaskSpec) -> dict[str, float | int | str]:
    family = get(spec.family)
    if not isinstance(family, ShapedFamily) or "model" not in family.offers:
        return {"data": spec.family, "architecture": spec.family}
    shape = family.shape(spec)
    program = family.program(shape)
    stream, model = (type(getattr(program, part, None)).__name__ for part in ("stream", "model"))
    source = getattr(getattr(program, "stream", None), "source", None)
    named = {"data": shape.get("data", getattr(source, "name", stream.lower())), "architecture": _ARCHITECTURES.get(model, model.lower())}
    return {**axis_values(shape), **named, **({"architecture": shape["cell"]} if "cell" in shape else {})}


def _covered(met: Collection[dict[str, float | int | str]]) -> Support:
    """Return axis -> [lowest, highest] of numbers, or the names in alphabetical order."""
    support: Support = {}
    for axis in dict.fromkeys(axis for one in met for axis in one):
        values = [one[axis] for one in met if axis in one]
        numbers, words = [v for v in values if not isinstance(v, str)], {v for v in values if isinstance(v, str)}
        support[axis] = [*sorted(words)] if words else [min(numbers), max(numbers)]
    return support
