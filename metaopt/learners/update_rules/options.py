"""The options of a rule are the init fields of its dataclass; their annotations say what is allowed."""

import dataclasses
import functools
import json
from collections.abc import Hashable, Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from metaopt.errors import ConfigError
from metaopt.names import nearest

__all__ = ["checked_options"]


@functools.cache
def _adapters(rule: Hashable) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(rule, include_extras=True)
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    return {one.name: TypeAdapter(hints[one.name], config=strict) for one in dataclasses.fields(rule) if one.init}  # type: ignore[arg-type]  # a class


def checked_options(name: str, rule: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a rule, lists turned into the tuples that they stand for (a card is JSON).

    Raises:
        ConfigError: an option that the rule does not have, or a value that its annotation does not allow.
    """
    adapters, checked = _adapters(rule), {}
    for key, value in options.items():
        if key not in adapters:
            raise ConfigError(f"update rule {name} has no option {key!r}{nearest(key, adapters)}")
        try:
            checked[key] = adapters[key].validate_json(json.dumps(value))
        except (ValidationError, TypeError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise ConfigError(f"option {key} of update rule {name}: {reason}, got {value!r}") from error
    return checked
