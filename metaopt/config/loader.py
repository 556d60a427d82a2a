"""Load a config by path or bundled name, apply overrides, check it, and remember where every value came from."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from metaopt.config.explain import explain
from metaopt.config.policy import PolicyConfig, is_policy
from metaopt.config.schema import Config
from metaopt.config.yaml_core import Document, Path, parse, shorten, show_path, show_value
from metaopt.errors import ConfigError
from metaopt.names import nearest

__all__ = ["AnyConfig", "bundled_configs", "load_config", "parse_config"]

AnyConfig = Config | PolicyConfig
"""What a file may hold: the training of a policy if its learner says `kind: policy`, else that of an update rule or a schedule."""

_PACKAGE = FilePath(__file__).parent.parent


@dataclass(frozen=True)
class _Setting:
    """One value set outside of the file, and how the user wrote it."""

    path: Path
    value: Any
    source: str
    origin: str


def bundled_configs() -> dict[str, FilePath]:
    """Return the configs that ship with metaopt by name: those in the package, else those of the checkout."""
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if found := sorted(folder.glob("*.yaml")):
            return {path.stem: path for path in found}
    return {}


def load_config(
    source: str | FilePath, overrides: Sequence[str] | Mapping[str, object] = (), options: Mapping[str, object] | None = None
) -> AnyConfig:
    """Return the checked config of a file or bundled name, with overrides applied.

    Args:
        source: path of a YAML file, or the name of a bundled config.
        overrides: `["outer.steps=50", …]`, or `{"outer.steps": 50}`; list elements by number (`tasks.0.shards`). They must not
            set one thing twice; they may replace what the file says.
        options: settings that came by another way than an override, by the key they set (`{"seed": 3}`), None for not given.

    Raises:
        ConfigError: no such config, or anything wrong in it; the message names the key, the value, what is allowed, and the place.
    """
    path, shown = _find(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
        raise ConfigError(f"config file {shown} {reason}") from error
    return parse_config(text, shown, overrides, options)


def parse_config(
    text: str, origin: str, overrides: Sequence[str] | Mapping[str, object] = (), options: Mapping[str, object] | None = None
) -> AnyConfig:
    """Return the checked config that a YAML text spells; arguments and errors as for `load_config`."""
    document = parse(text, origin)
    if not isinstance(document.value, dict):
        raise ConfigError(f"a config must be a mapping of keys to values, got {show_value(document.value)} ({origin})")
    settings = [_Setting((key,), value, f"--{key} {value}", f"--{key}") for key, value in (options or {}).items() if value is not None]
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(_split, overrides)
    settings += [_setting(key, value, isinstance(overrides, Mapping)) for key, value in pairs]
    _refuse_conflicts(settings)
    for setting in settings:
        _apply(document.value, setting)
    return _validate(document, origin, settings)


def _find(source: str | FilePath) -> tuple[FilePath, str]:
    """Return the file of a config, and how to call it in messages and origins (the same text on every machine for bundled ones)."""
    path, bundled = FilePath(source), bundled_configs()
    if os.path.isfile(path):  # unlike Path.is_file, no error for a name that is too long
        return path, " ".join(str(source).split())
    if str(source) in bundled:
        return bundled[str(source)], f"configs/{source}.yaml"
    if path.suffix in (".yaml", ".yml") or len(path.parts) != 1:
        raise ConfigError(f"config file {show_value(str(source))} does not exist")
    raise ConfigError(f"config {show_value(str(source))} is unknown{nearest(str(source), bundled)}; or give the path of a .yaml file")


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"an override must be key=value, got {show_value(text)}")
    return key, value


def _setting(key: str, value: Any, plain: bool) -> _Setting:
    path = tuple(int(part) if part.isdecimal() and part.isascii() and len(part) < 10 else part for part in key.split("."))
    if "" in path:
        raise ConfigError(f"an override must be key=value with a key like outer.steps, got {show_value(f'{key}={value}')}")
    source = f"{show_path(path)}={show_value(value) if plain else shorten(value)}"
    if not plain:
        return _Setting(path, parse(value, f"override {source}", numbered=False).value, source, "override")
    try:  # a plain JSON value, so that a tuple becomes a list and nothing but data gets in
        return _Setting(path, json.loads(json.dumps(value)), source, "override")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{show_path(path)} must be a number, a text, a list or a mapping, got {show_value(value)} (override)") from error


def _refuse_conflicts(settings: list[_Setting]) -> None:
    """Refuse two settings of one key, or of a section and a key inside it: which one wins would depend on their order."""
    for i, later in enumerate(settings):
        for earlier in settings[:i]:
            shared = min(len(later.path), len(earlier.path))
            if later.path[:shared] == earlier.path[:shared]:
                raise ConfigError(f"{show_path(later.path[:shared])} is set twice: {earlier.source} and {later.source}")


def _apply(tree: Any, setting: _Setting) -> None:
    """Set one value in place; sections that the file leaves out are made, list elements must be there."""
    for i, part in enumerate(setting.path):
        here, last = setting.path[:i], i == len(setting.path) - 1
        if isinstance(tree, list):
            if not isinstance(part, int) or part >= len(tree):
                allowed = f"0 to {len(tree) - 1}" if tree else "nothing, it is empty"
                raise ConfigError(f"{show_path(here)} has elements {allowed}, got {show_path((part,))} (override {setting.source})")
        elif isinstance(tree, dict):
            part = str(part)
            if not last and tree.get(part) is None:
                tree[part] = {}
        else:
            raise ConfigError(f"{show_path(here)} is {show_value(tree)}, which has no {show_path((part,))} (override {setting.source})")
        if last:
            tree[part] = setting.value
        tree = tree[part]


def _validate(document: Document, origin: str, settings: list[_Setting]) -> AnyConfig:
    def place(path: Path) -> str:
        for setting in settings:
            shared = len(setting.path) if path in document.lines else min(len(setting.path), len(path))
            if path[:shared] == setting.path[:shared] and shared:
                return setting.origin if setting.origin != "override" else f"override {setting.source}"
        known = next((path[:n] for n in range(len(path), -1, -1) if path[:n] in document.lines), ())
        return f"{origin}:{document.lines.get(known, 1)}"

    model: type[AnyConfig] = PolicyConfig if is_policy(document.value) else Config
    try:
        # Through JSON: strict, yet a list may stand for a tuple.
        config = model.model_validate_json(json.dumps(document.value))
    except ValidationError as error:
        path, message = explain(error.errors(include_url=False), document.value, model)
        raise ConfigError(f"{message} ({place(path)})") from error
    for path in _leaves(document.value, ()):
        source = place(path)
        config._origins[".".join(map(str, path))] = "override" if source.startswith("override ") else source
    return config


def _leaves(tree: Any, path: Path) -> list[Path]:
    if isinstance(tree, dict):
        return [leaf for key, child in tree.items() for leaf in _leaves(child, (*path, key))]
    if isinstance(tree, list) and any(isinstance(child, dict) for child in tree):
        return [leaf for i, child in enumerate(tree) for leaf in _leaves(child, (*path, i))]
    return [path]
