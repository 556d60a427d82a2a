"""Checks of a config that need more than one section, or what the names in it stand for."""

import difflib
import fnmatch
import re
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from metaopt.config.sections import config_error
from metaopt.config.yaml_core import shorten
from metaopt.errors import ConfigError

if TYPE_CHECKING:
    from metaopt.config.schema import Config

__all__ = ["check_between_sections"]

_LISTED = 12  # entries of theta in a message


def check_between_sections(config: "Config") -> None:
    """Raise the first problem between the sections of a config, as an error that the loader reports with its place."""
    shards = sum(task.shards for task in config.tasks)
    if (asked := config.outer.shards_per_step) is not None and asked > shards:
        raise config_error(("outer", "shards_per_step"), f"must be <= {shards}, the shards of all tasks, got {asked}")
    try:
        window = config.outer.estimator.recipe.window
    except ConfigError as error:  # options that do not go together
        raise config_error(("outer", "estimator"), f"cannot be used: {error}") from error
    shortest = min(task.horizon[0] for task in config.tasks)
    if window > shortest:
        raise config_error(("outer", "estimator", "window"), f"must be <= {shortest}, the shortest horizon of the tasks, got {window}")
    families = sorted({task.family for task in config.tasks})
    if (costs := config.outer.costs) is not None and sorted(costs) != families:
        raise config_error(
            ("outer", "costs"), f"must have a cost for each family of tasks ({', '.join(families)}), got {', '.join(costs) or 'none'}"
        )
    _check_phases(config, window)
    _check_validation(config)


def _check_phases(config: "Config", window: int) -> None:
    names: list[str] = []
    for i, phase in enumerate(config.outer.phases):
        place = ("outer", "phases", i)
        if phase.horizon is not None and phase.horizon[0] < window:
            raise config_error((*place, "horizon", 0), f"must be >= {window}, the window of the estimator, got {phase.horizon[0]}")
        for j, pattern in enumerate(phase.train):
            if pattern == "*":
                continue
            if not names:
                names = list(config.learner.build().init_theta(0))
            if not fnmatch.filter(names, pattern):
                near = difflib.get_close_matches(re.sub(r"[*?\[\]]", "", pattern), names, n=1, cutoff=0.0)[0]
                listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
                message = f"must match an entry of theta, got {shorten(repr(pattern))}; nearest: {near}; there are {listed}"
                raise config_error((*place, "train", j), message)


def _check_validation(config: "Config") -> None:
    from metaopt import tasks

    if (validation := config.validation) is None:
        return
    known = [name for name in tasks.names() if tasks.get(name).templates("meta_valid")]
    for i, name in enumerate(validation.tasks or ()):
        if name not in tasks.names():
            raise PydanticCustomError("unknown_name", "", {"at": ["validation", "tasks", i], "allowed": sorted(known)})
        if name not in known:
            raise config_error(("validation", "tasks", i), f"must have meta_valid templates, got {name!r}, which has none")
    if validation.tasks is None and not any(task.family in known for task in config.tasks):
        raise config_error(("validation", "tasks"), f"must name families with meta_valid templates ({', '.join(known)}): tasks has none")
