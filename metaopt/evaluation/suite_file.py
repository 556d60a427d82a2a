"""The YAML of a suite, read and checked line by line; what its tasks are is for `suites` to say.

A file has `description` and `tasks`, and may have `baselines`, `seeds` and an axis: `axis`, `home` and `levels`, which come together.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from metaopt import baselines
from metaopt.config.yaml_core import Document, parse, show_value
from metaopt.errors import ConfigError
from metaopt.names import nearest
from metaopt.tasks import SHIFTS

__all__ = ["SPELLED_AXES", "SUITE_AXES", "Axis", "AxisLevel", "Entry", "SuiteFile", "named", "read_suite_file"]

SPELLED_AXES = ("data", "architecture")  # no task can be shifted along them: each level is a task of its own, spelled out
SUITE_AXES = (*SHIFTS, *SPELLED_AXES)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_POWER = re.compile(r"2\^(-?[0-9]{1,3})")
_WITHOUT_ORDER = ("activation", "precision", *SPELLED_AXES)
_IN_UNITS = ("gradient_noise",)  # levels are amounts; those of the other axes multiples of the base task's own
_SEEDS = 5
_KEYS = ("description", "tasks", "axis", "home", "levels", "baselines", "seeds")
_SAMPLED: Mapping[str, type] = {"family": str, "template": str, "seed": int, "horizon": int, "hash": str}


@dataclass(frozen=True)
class AxisLevel:
    """One level of an axis.

    Attributes:
        name: what reports call it.
        factor: multiple of the home level, 1 at home; None on an axis without an order.
    """

    name: str
    factor: float | None


@dataclass(frozen=True)
class Axis:
    """What varies in a suite.

    Attributes:
        name: a key of `metaopt.tasks.SHIFTS`, `data` or `architecture`.
        home: name of the level that others are compared with.
        levels: by increasing factor, where they have one.
    """

    name: str
    home: str
    levels: tuple[AxisLevel, ...]


@dataclass(frozen=True)
class Entry:
    """One item of `tasks`.

    Attributes:
        base: its name, that of the base task on an axis.
        level: of a task that is spelled out on an axis, else None.
        family, template, seed, horizon: what is sampled.
        hash: that the sample must have.
        place: file and line, for messages.
    """

    base: str
    level: str | None
    family: str
    template: str
    seed: int
    horizon: int
    hash: str
    place: str


@dataclass(frozen=True)
class SuiteFile:
    """A suite as its file has it; see `metaopt.evaluation.Suite`.

    Attributes:
        levels: level name -> what `metaopt.tasks.shift` takes; the name itself on axes without an order.
    """

    description: str
    axis: Axis | None
    levels: Mapping[str, float | str]
    baselines: tuple[str, ...]
    seeds: int
    entries: tuple[Entry, ...]


def read_suite_file(path: Path) -> SuiteFile:
    """Return the content of a suite's file.

    Raises:
        ConfigError: it cannot be read, or a key or value is not what it must be; the message ends with file and line.
    """
    try:
        document = parse(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"suite {str(path)!r} cannot be read: {error}") from error
    content = document.value
    if not isinstance(content, dict) or not isinstance(content.get("tasks"), list) or not content["tasks"] or "description" not in content:
        raise ConfigError(f"a suite must hold 'description' and a list 'tasks' that is not empty ({path})")
    for key in content:
        if key not in _KEYS:
            raise ConfigError(f"suite key {key!r} is unknown{nearest(key, _KEYS)} ({_place(path, document, key)})")
    axis, levels = _axis(content, path, document)
    seeds = content.get("seeds", _SEEDS)
    if type(seeds) is not int or seeds < 1:
        raise ConfigError(f"suite seeds must be a whole number >= 1, got {show_value(seeds)} ({_place(path, document, 'seeds')})")
    entries = tuple(_entry(one, axis, _place(path, document, "tasks", i)) for i, one in enumerate(content["tasks"]))
    return SuiteFile(str(content["description"]), axis, levels, _baselines(content, path, document), seeds, entries)


def named(base: str, level: str | None) -> str:
    """Return the name of a base task at a level: BASE@LEVEL, or BASE without an axis."""
    return base if level is None else f"{base}@{level}"


def _place(path: Path, document: Document, *keys: str | int) -> str:
    return f"{path}:{document.lines.get(keys, 1)}"


def _baselines(content: dict[str, Any], path: Path, document: Document) -> tuple[str, ...]:
    if "baselines" not in content:
        return baselines.DEFAULT
    chosen, place = content["baselines"], _place(path, document, "baselines")
    if not isinstance(chosen, list) or not chosen or not all(isinstance(name, str) for name in chosen):
        raise ConfigError(f"suite baselines must be a list of names that is not empty, got {show_value(chosen)} ({place})")
    for name in chosen:
        try:
            baselines.get(name)
        except ConfigError as error:
            raise ConfigError(f"{error} ({place})") from error
        if chosen.count(name) > 1:
            raise ConfigError(f"suite baseline {name!r} is there twice ({place})")
    return tuple(chosen)


def _axis(content: dict[str, Any], path: Path, document: Document) -> tuple[Axis | None, dict[str, float | str]]:
    """Return the axis, and what `metaopt.tasks.shift` takes at each of its levels."""
    given = [key for key in ("axis", "home", "levels") if key in content]
    if not given:
        return None, {}
    place = _place(path, document, given[0])
    if len(given) < 3:
        raise ConfigError(f"suite keys axis, home and levels come together, got {' and '.join(given)} only ({place})")
    axis, values = content["axis"], content["levels"]
    if axis not in SUITE_AXES:
        raise ConfigError(f"suite axis {show_value(axis)} is unknown{nearest(str(axis), SUITE_AXES)} ({place})")
    place = _place(path, document, "levels")
    if not isinstance(values, list) or len(values) < 2:
        raise ConfigError(f"suite levels must be a list of at least two, got {show_value(values)} ({place})")
    (home, unit), *levels = (_level(axis, value, place) for value in (content["home"], *values))
    known = ", ".join(name for name, _ in levels)
    if (home, unit) not in levels:
        raise ConfigError(f"suite home {home!r} must be one of its levels {known} ({_place(path, document, 'home')})")
    if axis in _WITHOUT_ORDER:
        if len({name for name, _ in levels}) < len(levels):
            raise ConfigError(f"suite levels must differ, got {known} ({place})")
        return Axis(axis, home, tuple(AxisLevel(name, None) for name, _ in levels)), dict(levels)
    if axis not in _IN_UNITS and unit != 1:
        raise ConfigError(f"suite home of axis {axis} must be 1, the base task as it is, got {home} ({_place(path, document, 'home')})")
    if any(float(a) >= float(b) for (_, a), (_, b) in pairwise(levels)):
        raise ConfigError(f"suite levels must increase, got {known} ({place})")
    factors = (AxisLevel(name, float(value) / float(unit)) for name, value in levels)
    return Axis(axis, home, tuple(factors)), dict(levels)


def _level(axis: str, value: Any, place: str) -> tuple[str, float | str]:
    """Return a level's name and value: a name, a number, or a power of two spelled as 2^-20."""
    if axis in _WITHOUT_ORDER:
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise ConfigError(f"suite level of axis {axis} must be a plain name, got {show_value(value)} ({place})")
        return value, value
    power = _POWER.fullmatch(value) if isinstance(value, str) else None
    number = 2.0 ** int(power[1]) if power else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise ConfigError(f"suite level of axis {axis} must be a number > 0 or a power of two like 2^-3, got {show_value(value)} ({place})")
    return (str(value) if power else f"{number:g}" if axis in _IN_UNITS else f"x{number:g}"), number


def _entry(entry: Any, axis: Axis | None, place: str) -> Entry:
    spelled = axis is not None and axis.name in SPELLED_AXES
    wanted: dict[str, type] = {**({"base": str, "level": str} if spelled else {"name": str}), **_SAMPLED}
    if not isinstance(entry, dict) or set(entry) != set(wanted):
        raise ConfigError(f"a suite task must have exactly {', '.join(wanted)} ({place})")
    for key, kind in wanted.items():
        if type(entry[key]) is not kind:
            raise ConfigError(f"suite task field {key} must be {kind.__name__}, got {show_value(entry[key])} ({place})")
    base, level = entry["base" if spelled else "name"], entry.get("level")
    if not _NAME.fullmatch(base) or entry["horizon"] < 1:
        raise ConfigError(f"suite task {base!r} needs a plain name and a horizon >= 1, got {entry['horizon']} ({place})")
    if axis is not None and spelled and level not in (known := [one.name for one in axis.levels]):
        raise ConfigError(f"suite task {base!r}: level {level!r} is unknown{nearest(str(level), known)} ({place})")
    return Entry(base, level, place=place, **{key: entry[key] for key in _SAMPLED})
