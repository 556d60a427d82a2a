"""Suites: named, fixed lists of held-out tasks, as data.

A suite's YAML names the family, template, values seed and horizon of every task, and the hash of the spec that they must give: a family
that changes what it samples cannot change a suite in silence.
"""

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from metaopt import tasks
from metaopt.config.yaml_core import parse
from metaopt.errors import ConfigError, TaskError
from metaopt.names import nearest
from metaopt.tasks import TaskSpec

__all__ = ["Suite", "load_suite", "suite_names"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FIELDS = {"name": str, "family": str, "template": str, "seed": int, "horizon": int, "hash": str}


@dataclass(frozen=True)
class Suite:
    """A fixed list of tasks.

    Attributes:
        name: file name without `.yaml`.
        description: one line.
        specs: task name -> spec, all of split `meta_test`.
    """

    name: str
    description: str
    specs: dict[str, TaskSpec]


def suite_names() -> tuple[str, ...]:
    """Return the names of all bundled suites, sorted."""
    return tuple(sorted({path.stem for folder in _folders() for path in folder.glob("*.yaml")}))


def load_suite(name_or_path: str) -> Suite:
    """Return a suite by bundled name, or by the path of a YAML file.

    Raises:
        ConfigError: unknown name, or a file that is no suite; the message has the place.
        TaskError: a task that its family does not make (any more), that is not held out, or that is there twice.
    """
    path = Path(name_or_path) if name_or_path.endswith(".yaml") else _bundled(name_or_path)
    try:
        document = parse(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"suite {name_or_path!r} cannot be read: {error}") from error
    content = document.value
    if (
        not isinstance(content, dict)
        or set(content) != {"description", "tasks"}
        or not isinstance(content["tasks"], list)
        or not content["tasks"]
    ):
        raise ConfigError(f"a suite must hold 'description' and a list 'tasks', nothing else ({path})")
    specs: dict[str, TaskSpec] = {}
    for i, entry in enumerate(content["tasks"]):
        place = f"{path}:{document.lines.get(('tasks', i), 1)}"
        name = _checked(entry, place)["name"]
        if name in specs:
            raise TaskError(f"suite task {name!r} is there twice ({place})")
        specs[name] = _spec(entry, place)
    return Suite(path.stem, str(content["description"]), specs)


def _folders() -> tuple[Path, ...]:
    packaged = Path(str(files("metaopt"))) / "configs" / "suites"
    checkout = Path(str(files("metaopt"))).parent / "configs" / "suites"
    return tuple(folder for folder in (packaged, checkout) if folder.is_dir())


def _bundled(name: str) -> Path:
    if _NAME.fullmatch(name):
        for folder in _folders():
            if (folder / f"{name}.yaml").is_file():
                return folder / f"{name}.yaml"
    raise ConfigError(f"suite {name!r} is unknown{nearest(name, suite_names())}")


def _checked(entry: Any, place: str) -> dict[str, Any]:
    if not isinstance(entry, dict) or set(entry) != set(_FIELDS):
        raise ConfigError(f"a suite task must have exactly {', '.join(_FIELDS)} ({place})")
    for key, kind in _FIELDS.items():
        if type(entry[key]) is not kind:
            raise ConfigError(f"suite task field {key} must be {kind.__name__}, got {entry[key]!r} ({place})")
    if not _NAME.fullmatch(entry["name"]) or entry["horizon"] < 1:
        raise ConfigError(f"suite task {entry['name']!r} needs a plain name and a horizon >= 1, got {entry['horizon']} ({place})")
    return entry


def _spec(entry: dict[str, Any], place: str) -> TaskSpec:
    family = tasks.get(entry["family"])
    spec = family.sample(entry["template"], entry["seed"], (entry["horizon"], entry["horizon"]))
    if spec.split != "meta_test":
        raise TaskError(f"suite task {entry['name']!r} is in {spec.split}, a suite may only use meta_test ({place})")
    if spec.hash != entry["hash"]:
        raise TaskError(
            f"suite task {entry['name']!r} is now {spec.hash}, the suite was made for {entry['hash']}: its family changed ({place})"
        )
    return spec
