"""Sections whose keys depend on a name: the options of an update rule or an estimator, read from the registry that has it.

The options are the init fields of the entry's dataclass, with their annotations as ranges. A rule that a user registers can therefore be
configured, checked and explained like a built-in one, and a config can still never name code to import.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

__all__ = ["Chosen", "option_model", "options_of"]


def options_of(entry: Any) -> dict[str, tuple[Any, Any]]:
    """Return name -> (annotation, default) of the init fields of a dataclass; `...` stands for no default."""
    hints = get_type_hints(entry, include_extras=True)
    found: dict[str, tuple[Any, Any]] = {}
    for field in dataclasses.fields(entry):
        if field.init:
            default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            found[field.name] = (hints[field.name], ... if default is dataclasses.MISSING else default)
    return found


@functools.cache
def option_model(base: type[BaseModel], key: str, name: str, entry: Any) -> type[BaseModel]:
    """Return the model of one section: the keys of `base`, then those of the entry, with `key` fixed to `name`."""
    tag: Any = Literal[name]
    fields: dict[str, Any] = {key: (tag, ...), **options_of(entry)}
    return create_model(f"{base.__name__}[{name}]", __base__=base, **fields)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Annotation of a field whose section is chosen by name: `Annotated[Base, Chosen(key, entries)]`.

    Attributes:
        key: the key of the section that holds the name.
        entries: returns what there is to choose from, by name.
    """

    key: str
    entries: Callable[[], Mapping[str, Any]]

    def model(self, base: type[BaseModel], value: Any) -> type[BaseModel] | None:
        """Return the model of the section that `value` chooses, or None if it names nothing that there is."""
        name = value.get(self.key) if isinstance(value, dict) else None
        entries = self.entries()
        return option_model(base, self.key, name, entries[name]) if isinstance(name, str) and name in entries else None

    def section(self, base: type[BaseModel], value: Any) -> Any:
        """Return the section that `value` spells; errors are pydantic's."""
        if isinstance(value, base):
            return value
        if not isinstance(value, dict):
            raise PydanticKnownError("dict_type")
        if (name := value.get(self.key)) is None and self.key not in value:
            raise PydanticCustomError("missing_name", "", {"at": [self.key]})
        model = self.model(base, value)
        if model is None:
            raise PydanticCustomError("unknown_name", "", {"at": [self.key], "allowed": list(self.entries()), "value": name})
        return model.model_validate_json(json.dumps(value))  # through JSON: strict, yet a list may stand for a tuple

    def __get_pydantic_core_schema__(self, base: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(functools.partial(self.section, base))
