"""Turn pydantic's errors into one line that names the key, what it got, the nearest or allowed values, and the place."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from metaopt.config.options import Chosen
from metaopt.config.yaml_core import Path, show_path, show_value

__all__ = ["explain"]

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of at most 4000 digits",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "list_type": "a list",
    "tuple_type": "a list",
}
_BOUNDS = {"greater_than": (">", "gt"), "greater_than_equal": (">=", "ge"), "less_than": ("<", "lt"), "less_than_equal": ("<=", "le")}
_NAME_RULE = "1 to 100 letters, digits, single dots, dashes and underscores, the first a letter or digit"


def explain(errors: list[ErrorDetails], tree: Any, model: type[BaseModel]) -> tuple[Path, str]:
    """Return where the first problem is and the message about it, without its place.

    A learner of an unknown kind comes first, for the kind decides which keys there are. Then unknown keys: a misspelt required key is also
    a missing one, and the spelling is what has to be mended.

    Args:
        errors: `ValidationError.errors()` of `model`, at least one.
        tree: the plain values that were validated.
        model: the root config.
    """
    error = min(errors, key=lambda e: (_path(e) != ("learner", "kind"), e["type"] != "extra_forbidden"))
    kind, context, path = error["type"], error.get("ctx", {}), _path(error)
    value = _lookup(tree, path)
    name, got = show_path(path) or "the config", f"got {show_value(value)}"

    if kind == "extra_forbidden":
        return path, f"unknown key {name}{_nearest_key(path, tree, model)}"
    if kind in ("missing", "missing_name"):
        return path, f"{name} is missing"
    if kind == "literal_error":
        return path, _choice(name, value, _words(context["expected"].replace(" or ", ", ")))
    if kind == "unknown_name":
        return path, _choice(name, value, context["allowed"])
    if kind == "config":
        return path, f"{name} {context['text']}"
    if kind in _BOUNDS:
        sign, key = _BOUNDS[kind]
        return path, f"{name} must be {sign} {_bound(context[key])}, {got}"
    if kind in ("string_pattern_mismatch", "string_too_long"):
        return path, f"{name} must be {_NAME_RULE}, {got}"
    if kind in ("too_long", "too_short"):
        return path, f"{name} must have {_length(context)}, {got}"
    return path, f"{name} must be {_KINDS[kind]}, {got}" if kind in _KINDS else f"{name}: {error['msg']}, {got}"


def _path(error: ErrorDetails) -> Path:
    return (*error["loc"], *error.get("ctx", {}).get("at", ()))


def _bound(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _words(listed: str) -> list[str]:
    return [word.strip("' ") for word in listed.split(",")]


def _choice(name: str, value: Any, allowed: list[str]) -> str:
    close = difflib.get_close_matches(value, allowed, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{name} must be one of {', '.join(allowed)}, got {show_value(value)}{hint}"


def _length(context: dict[str, Any]) -> str:
    low, high = context.get("min_length"), context.get("max_length")
    return f"{low} or more elements" if high is None else f"{high} elements"


def _lookup(tree: Any, path: Path) -> Any:
    for part in path:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def _nearest_key(path: Path, tree: Any, model: type[BaseModel]) -> str:
    """Return a hint: a sibling that reads alike, else the same word elsewhere in the config, else the siblings."""
    known = list(_known_paths(model, tree, ()))
    siblings = [str(other[-1]) for other in known if other[:-1] == path[:-1]]
    word = str(path[-1])
    if close := difflib.get_close_matches(word, siblings, n=1):
        return f"; did you mean {show_path((*path[:-1], close[0]))}?"
    if elsewhere := [other for other in known if other[-1] == word]:
        return f"; did you mean {show_path(elsewhere[0])}?"
    return f"; allowed: {', '.join(siblings)}"


def _known_paths(model: type[BaseModel], tree: Any, path: Path) -> Iterator[Path]:
    """Yield the path of every field; sections chosen by name are walked as the tree chose."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        value = _lookup(tree, (name,))
        if get_origin(field.annotation) is tuple and isinstance(value, list):
            element = get_args(field.annotation)[0]
            if isinstance(element, type) and issubclass(element, BaseModel):
                for i, child in enumerate(value):
                    yield from _known_paths(element, child, (*path, name, i))
        elif (chosen := _chosen(field, value)) is not None:
            yield from _known_paths(chosen, value, (*path, name))


def _chosen(field: FieldInfo, value: Any) -> type[BaseModel] | None:
    """Return the model of a section: its own class, or the one that it chooses by name."""
    options = [kind for kind in get_args(field.annotation) or (field.annotation,) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    base = options[0] if options else None
    chosen = next((mark for mark in field.metadata if isinstance(mark, Chosen)), None)
    return base if base is None or chosen is None else chosen.model(base, value)
