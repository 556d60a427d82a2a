"""Parse YAML 1.2 (core schema) into plain values that remember their lines.

PyYAML follows YAML 1.1, where `1e-3` is a string, `off` False, `012` ten and `1:30` ninety. Its scanner and composer are used here, its
resolver is not. Tags and aliases are refused: a config holds data only, and a few aliases can expand to gigabytes.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from metaopt.errors import ConfigError

__all__ = ["Document", "Path", "parse", "shorten", "show_path", "show_value"]

Path = tuple[str | int, ...]

_MAX_CHARACTERS = 1_000_000
_MAX_DIGITS = 4000  # CPython refuses to convert longer ones
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """A parsed document: its value, and the line (from 1) on which each element starts."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner, parser and composer without its resolver: untagged scalars stay as they are written."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (declared so by PyYAML)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            what = "aliases (*name)" if isinstance(event, yaml.AliasEvent) else f"tags ({event.tag})"
            raise yaml.MarkedYAMLError(problem=f"{what} are not allowed in a config", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def parse(text: str, origin: str, numbered: bool = True) -> Document:
    """Return the value of one YAML 1.2 document and its line numbers; an empty document is null.

    Args:
        text: the document.
        origin: what to call it in messages, a file or an override.
        numbered: whether messages give a line after the origin.

    Raises:
        ConfigError: not YAML, more than one document, a duplicate or non-scalar key, a tag, an alias, or too large.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(f"{origin} must have at most {_MAX_CHARACTERS} characters, got {len(text)}")
    lines: dict[Path, int] = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        value = None if node is None else _value(node, (), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{origin}:{mark.line + 1}" if mark and numbered else origin
        why = ", ".join(part for part in (error.context, error.problem) if part) or "not YAML"
        raise ConfigError(f"{shorten(why, 200)} ({place})") from error
    except yaml.YAMLError as error:  # characters that YAML forbids have no mark
        raise ConfigError(f"not YAML: {shorten(str(error), 200)} ({origin})") from error
    except RecursionError as error:
        raise ConfigError(f"nested too deeply ({origin})") from error
    return Document(value, lines)


def _value(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*path, i), lines) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a plain word", problem_mark=key.start_mark)
            if key.value in mapping:
                problem = f"{show_path((*path, key.value))} is set twice, first on line {lines[(*path, key.value)]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[(*path, key.value)] = key.start_mark.line + 1
            mapping[key.value] = _value(child, (*path, key.value), lines)
        return mapping
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node.value) if node.style is None else node.value


def _scalar(text: str) -> Any:
    """Return what a plain scalar means under the core schema of YAML 1.2, section 10.3.2."""
    if len(text) > _MAX_DIGITS and not text[0].isalpha():
        return text
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text


def show_path(path: Path) -> str:
    """Return `tasks.0.shards` for `("tasks", 0, "shards")`; odd characters are escaped, long names cut."""
    return ".".join(part if re.fullmatch(r"[\w-]{1,40}", part) else shorten(repr(part)) for part in map(str, path))


def show_value(value: Any) -> str:
    """Return a value as a config would spell it, on one line and at most 60 characters long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return shorten("[" + ", ".join(map(show_value, value)) + "]")
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    return shorten(repr(value))


def shorten(text: str, limit: int = 60) -> str:
    """Return the text on one line, printable, with at most `limit` characters."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 3] + "..."
