"""Turn a public JAX checkpoint of a learned optimizer, a file on disk, into an artifact that everything here runs."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaopt.artifacts.artifact import NAME, Artifact
from metaopt.artifacts.card import new_card
from metaopt.artifacts.flax_file import Array, Tree, flat_arrays, read_tree
from metaopt.artifacts.jax_tables import TABLES, Row, Size, Table
from metaopt.errors import ConfigError, UnsafeArtifactError
from metaopt.learners.update_rules import FEATURES, MODEL_RULES, ModelRule, UpdateRule, get_model_rule, get_rule
from metaopt.names import nearest

__all__ = ["convert_jax"]

Sizes = dict[str, int]


def convert_jax(
    path: str | os.PathLike[str], out: str | os.PathLike[str], rule: str | None = None, name: str | None = None, **options: Any
) -> Path:
    """Write the artifact folder `out` with the meta-parameters that a JAX checkpoint holds, and return its path.

    Args:
        path: a file that `flax.serialization` wrote: the meta-parameters alone, or a checkpoint of google/learned_optimization around them.
        out: folder of the artifact; an artifact that is there is replaced.
        rule: "mlp", "small_fc", "rnn_mlp", "velo", "celo" or "celo_adam" (our "celo" with another direction); None finds it out.
        name: of the artifact; None takes the folder's.
        options: of our rule, where the checkpoint was trained with others than its defaults (the file does not say), e.g. `step_mult`.

    Raises:
        ConfigError: no such file, rule or option, a name that no artifact can have, a file of no rule that is known, or no package msgpack.
        UnsafeArtifactError: a damaged file, or tensors that are missing, too many, of another shape, or not finite.
    """
    place = str(path)
    arrays = flat_arrays(_theta(read_tree(path)), place)
    if rule is None:
        rule = _recognised(arrays, place)
    elif rule not in TABLES:
        raise ConfigError(f"rule {rule!r} cannot be converted{nearest(rule, TABLES)}")
    table, sizes = TABLES[rule], _sizes(arrays, TABLES[rule])
    problem = _problem(arrays, table, sizes)
    if problem:
        raise UnsafeArtifactError(f"{place}: {problem} of rule {rule}")
    theta = {row.name: _converted(row, arrays, sizes, place) for row in table.rows}
    options = {**{key: _filled(value, sizes) for key, value in table.options.items()}, **options}
    built = get_model_rule(table.rule, **options) if table.rule in MODEL_RULES else get_rule(table.rule, **options)
    _check_fit(built, theta, place)
    name = Path(out).name if name is None else name
    if not NAME.fullmatch(name):
        raise ConfigError(f"name {name[:100]!r} must be letters, digits, '.', '_' and '-', at most 100; give one with name=")
    card = new_card(
        name,
        table.rule,
        options=options,
        features=list(FEATURES.get(table.rule, ())),
        limits=_limits(built, Path(path)),
        licence="that of the checkpoint",
    )
    return Artifact(card, theta).save(out)


def _theta(tree: Tree) -> Mapping[str, Any]:
    """Return the meta-parameters in what was saved: alone, with a name and a step beside them, or in the state of an outer loop."""
    if tree.keys() == {"params", "gen_id", "step"}:
        tree = tree["params"]
    elif tree.keys() == {"0", "1", "2"} and isinstance(tree["0"], dict):  # a tuple (theta, name, step)
        tree = tree["0"]
    elif isinstance(tree.get("gradient_learner_state"), dict):
        optimizer = tree["gradient_learner_state"].get("theta_opt_state")
        tree = optimizer["params"] if isinstance(optimizer, dict) and "params" in optimizer else tree
    return tree if isinstance(tree, dict) else {"params": tree}


def _expected(table: Table) -> dict[str, tuple[Size, ...]]:
    return {**dict(tensor for row in table.rows for tensor in row.tensors), **table.ignored}


def _recognised(arrays: Mapping[str, Array], place: str) -> str:
    """Return the rule that fits the tensors, else the one that has most of them, so that an error says what is wrong."""
    for rule, table in TABLES.items():
        if _problem(arrays, table, _sizes(arrays, table)) is None:
            return rule
    common = {rule: len(_expected(table).keys() & arrays.keys()) / len(_expected(table)) for rule, table in TABLES.items()}
    best = max(common, key=lambda rule: common[rule])
    if common[best] < 0.5:
        some = ", ".join(sorted(arrays)[:4]) or "none"
        raise ConfigError(f"{place}: no rule has these tensors ({some}, ...); known are checkpoints of {', '.join(TABLES)}")
    return best


def _sizes(arrays: Mapping[str, Array], table: Table) -> Sizes:
    """Return the size that each letter has where it stands by itself first."""
    sizes: Sizes = {}
    for path, shape in _expected(table).items():
        found = arrays[path].shape if path in arrays else ()
        for size, actual in zip(shape, found, strict=False):
            if len(found) == len(shape) and isinstance(size, str) and len(size) == 1:
                sizes.setdefault(size, actual)
    return sizes


def _problem(arrays: Mapping[str, Array], table: Table, sizes: Sizes) -> str | None:
    """Return the first thing that keeps the tensors from being those of the table, in words that "of rule ..." follows."""
    expected = _expected(table)
    for path in expected:
        if path not in arrays:
            return f"tensor {path!r} is missing, which is"
    for path in arrays:
        if path not in expected:
            return f"tensor {path!r} is none"
    for path, shape in expected.items():
        wanted, found = tuple(_value(size, sizes) for size in shape), arrays[path].shape
        if found != wanted:
            return f"tensor {path!r} has shape {found} where {wanted} is that"
    return None


def _value(size: Size, sizes: Sizes) -> int | str:
    """Return the number that a size stands for, or the size itself while one of its letters is not known."""
    if isinstance(size, int):
        return size
    terms = re.findall(r"(\d*)([A-Z]?)", size.replace("+", " "))
    total = 0
    for factor, letter in terms:
        if letter and letter not in sizes:
            return size
        if factor or letter:
            total += int(factor or 1) * (sizes[letter] if letter else 1)
    return total


def _filled(value: Any, sizes: Sizes) -> Any:
    if isinstance(value, tuple):
        return [_filled(item, sizes) for item in value]
    return sizes.get(value, value) if isinstance(value, str) else value


def _converted(row: Row, arrays: Mapping[str, Array], sizes: Sizes, place: str) -> Tensor:
    """Return one tensor of ours, float32."""
    parts = [arrays[path] for path, _ in row.tensors]
    for (path, _), part in zip(row.tensors, parts, strict=True):
        if part.dtype.kind != "f":
            raise UnsafeArtifactError(f"{place}: tensor {path!r} is {part.dtype.name}, a weight is a floating-point number")
        if not np.isfinite(part).all():
            raise UnsafeArtifactError(f"{place}: tensor {path!r} is not finite")
    value = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-2)
    if row.part is not None:
        start, stop = (None if end == "" else int(_value(end, sizes)) for end in row.part)
        value = value[..., slice(start, stop), :]
    value = np.swapaxes(value, -1, -2) if row.transposed else value
    value = value[0] if row.squeezed else value
    with np.errstate(over="ignore"):
        small = np.array(value, dtype=np.float32, order="C")
    if not np.isfinite(small).all():
        raise UnsafeArtifactError(f"{place}: tensor {row.tensors[0][0]!r} is not finite in float32")
    return torch.from_numpy(small)


def _check_fit(rule: UpdateRule | ModelRule, theta: Mapping[str, Tensor], place: str) -> None:
    """Refuse options that give the rule another theta than the file has."""
    expected = {name: tuple(value.shape) for name, value in rule.init_theta(0).items()}
    found = {name: tuple(value.shape) for name, value in theta.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            shapes = f"expected {expected.get(name, 'none')}, found {found.get(name, 'none')}"
            raise ConfigError(f"{place}: with these options rule {rule.name} has another {name!r}: {shapes}")


def _limits(rule: UpdateRule | ModelRule, path: Path) -> dict[str, Any]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    reads = {
        limit: True for limit, flag in (("needs_loss", "needs_loss"), ("needs_total_steps", "needs_horizon")) if getattr(rule, flag, False)
    }
    return {**reads, "notes": [f"converted from the JAX checkpoint {path.name}, sha256 {digest}"]}
