"""Suites: named, fixed lists of held-out tasks, as data.

A suite's YAML names the family, template, values seed and horizon of every task, and the hash of the spec that they must give: a family
that changes what it samples cannot change a suite in silence. A suite with an axis takes a few base tasks away from home along it, one
level at a time.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from metaopt import tasks
from metaopt.errors import ConfigError, MetaoptError, TaskError
from metaopt.evaluation.suite_file import SPELLED_AXES, Axis, AxisLevel, Entry, SuiteFile, named, read_suite_file
from metaopt.registry import Registry
from metaopt.tasks import Family, TaskSpec

__all__ = ["Axis", "AxisLevel", "Suite", "SuiteTask", "kinds_of", "load_suite", "pinned_hash", "register_suite", "suite_names"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# What a kind of learner needs of a family beside gradients. A per-weight network takes the place of the task's model, an in-context learner
# reads examples one after the other: both predict from a stream.
_NEEDS = {"update_rule": (), "hypergradient": (), "policy": (), "per_weight": ("stream",), "in_context": ("stream",)}


def _check_file(path: str | os.PathLike[str]) -> None:
    file = Path(path)
    if not file.is_file() or file.suffix != ".yaml" or not _NAME.fullmatch(file.stem):
        raise ConfigError(f"suite {str(path)!r} must be a file that is there, with a plain name and .yaml behind it")


def _bundled() -> dict[str, Path]:
    packaged = Path(str(files("metaopt"))) / "configs" / "suites"
    folder = packaged if packaged.is_dir() else Path(str(files("metaopt"))).parent / "configs" / "suites"  # of a checkout
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


SUITES: Registry[str | os.PathLike[str]] = Registry("suite", "metaopt.suites", _bundled(), _check_file)


@dataclass(frozen=True)
class SuiteTask:
    """One task of a suite.

    Attributes:
        name: unique in the suite: BASE, or BASE@LEVEL on an axis.
        base: what tasks that differ along the axis only have in common.
        level: name of its level; None without an axis.
        spec: of split `meta_test`, shifted to its level.
        kinds: kinds of learner that can run on it.
    """

    name: str
    base: str
    level: str | None
    spec: TaskSpec
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """A fixed list of tasks.

    Attributes:
        name: file name without `.yaml`.
        description: one line.
        tasks: in the order of the file; those of a base task by level.
        axis: along which its tasks differ; None for a mere list.
        baselines: that an evaluation runs unless told otherwise.
        seeds: inner seeds of every run unless told otherwise.
    """

    name: str
    description: str
    tasks: tuple[SuiteTask, ...]
    axis: Axis | None
    baselines: tuple[str, ...]
    seeds: int

    @property
    def specs(self) -> dict[str, TaskSpec]:
        """Task name -> spec."""
        return {task.name: task.spec for task in self.tasks}


def register_suite(path: str | os.PathLike[str]) -> None:
    """Make a suite's file known by its name without `.yaml`.

    An installed package does the same by an entry point of group `metaopt.suites`, whose object is the path.

    Raises:
        ConfigError: no such file, no plain name, or the name is taken by another file.
    """
    file = Path(path).absolute()
    if file.stem not in SUITES or Path(SUITES[file.stem]) != file:
        SUITES.register(file.stem, file)


def suite_names() -> tuple[str, ...]:
    """Return the names of all bundled suites and those of installed plug-ins, sorted."""
    return tuple(sorted(SUITES))


def load_suite(name_or_path: str) -> Suite:
    """Return a suite by bundled name, or by the path of a YAML file. Reads data only where a task's batch is shifted.

    Raises:
        ConfigError: unknown name, or a file that is no suite; the message has the place.
        TaskError: a task that its family does not make (any more), that is not held out, or that is there twice.
    """
    path = Path(name_or_path) if name_or_path.endswith(".yaml") else Path(SUITES[name_or_path])
    content = read_suite_file(path)
    found: dict[str, SuiteTask] = {}
    for entry in content.entries:
        try:
            made = _tasks(entry, content)
        except MetaoptError as error:
            raise type(error)(f"{error} ({entry.place})") from error
        for task in made:
            if task.name in found:
                raise TaskError(f"suite task {task.name!r} is there twice ({entry.place})")
            found[task.name] = task
    _check_levels(content)
    return Suite(path.stem, content.description, tuple(found.values()), content.axis, content.baselines, content.seeds)


def kinds_of(family: Family) -> tuple[str, ...]:
    """Return the kinds of learner that can run on a family's tasks.

    What uses gradients runs on all of them: update rules, hypergradients and policies. Per-weight networks and in-context learners need a
    stream of examples, which a bare objective does not have.
    """
    return tuple(kind for kind, needs in _NEEDS.items() if set(needs) <= set(family.offers))


def pinned_hash(spec: TaskSpec) -> str:
    """Return the hash that a suite's file has of a task: the spec's own, but without its family's marks.

    Marks say on which text a task is, which differs between Python versions; what the family samples does not.
    """
    marks: Mapping[str, str] = getattr(tasks.get(spec.family), "marks", dict)()
    return replace(spec, values={name: value for name, value in spec.values.items() if name not in marks}).hash if marks else spec.hash


def _tasks(entry: Entry, content: SuiteFile) -> list[SuiteTask]:
    """Return the tasks of an entry: itself, or one for each level of an axis along which a task can be shifted."""
    spec, kinds, axis = _spec(entry), kinds_of(tasks.get(entry.family)), content.axis
    if axis is None or axis.name in SPELLED_AXES:
        return [SuiteTask(named(entry.base, entry.level), entry.base, entry.level, spec, kinds)]
    return [
        SuiteTask(named(entry.base, name), entry.base, name, tasks.shift(spec, axis.name, value), kinds)
        for name, value in content.levels.items()
    ]


def _spec(entry: Entry) -> TaskSpec:
    spec = tasks.get(entry.family).sample(entry.template, entry.seed, (entry.horizon, entry.horizon))
    name = named(entry.base, entry.level)
    if spec.split != "meta_test":
        raise TaskError(f"suite task {name!r} is in {spec.split}, a suite may only use meta_test")
    if pinned_hash(spec) != entry.hash:
        raise TaskError(f"suite task {name!r} is now {pinned_hash(spec)}, the suite was made for {entry.hash}: its family changed")
    return spec


def _check_levels(content: SuiteFile) -> None:
    """Raise unless every base task is spelled out at every level: levels are compared on the same base tasks."""
    levels = {entry.base: {one.level for one in content.entries if one.base == entry.base} for entry in content.entries}
    for entry in content.entries if content.axis is not None and content.axis.name in SPELLED_AXES else ():
        for level in content.levels:
            if level not in levels[entry.base]:
                raise TaskError(f"suite task {entry.base!r} is missing at level {level!r}; spell it out at each ({entry.place})")
