"""`metaopt list`: what there is, a line each."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import click

from metaopt.cli.options import json_option, speech_options
from metaopt.cli.output import print_rows
from metaopt.errors import ConfigError
from metaopt.names import nearest

__all__ = ["command"]

Row = dict[str, Any]


def _tasks() -> list[Row]:
    from metaopt import tasks

    families = [tasks.get(name) for name in tasks.names()]
    return [
        {"name": family.name, "offers": list(family.offers), **{split: len(family.templates(split)) for split in tasks.SPLITS}}
        for family in families
    ]


def _learners() -> list[Row]:
    from metaopt import learners
    from metaopt.learners.update_rules import is_model_rule

    rows = []
    for name in learners.names():
        rule = learners.rule_of(name)
        needs = {"loss": rule.needs_loss, "total_steps": rule.needs_horizon} if is_model_rule(rule) else {}
        size = sum(value.numel() for value in rule.init_theta(0).values())
        sees, reads = "model" if needs else "tensor", [what for what, needed in needs.items() if needed]
        rows.append({"name": name, "kind": "update_rule", "meta_parameters": size, "sees": sees, "reads": reads})
    return rows


def _configs() -> list[Row]:
    from metaopt.config import PolicyConfig, bundled_configs, load_config

    rows = []
    for name, path in bundled_configs().items():
        config = load_config(path)
        rule = config.learner.kind if isinstance(config, PolicyConfig) else config.learner.rule
        rows.append({"name": name, "rule": rule, "steps": config.outer.steps, "path": str(path)})
    return rows


def _suites() -> list[Row]:
    from metaopt.evaluation import load_suite, suite_names

    return [
        {
            "name": suite.name,
            "tasks": len(suite.tasks),
            "description": suite.description,
            "axis": suite.axis.name if suite.axis else None,
            "levels": [level.name for level in suite.axis.levels] if suite.axis else [],
            "families": sorted({task.spec.family for task in suite.tasks}),
            "kinds": dict(Counter(kind for task in suite.tasks for kind in task.kinds)),
            "baselines": list(suite.baselines),
            "seeds": suite.seeds,
        }
        for suite in map(load_suite, suite_names())
    ]


def _baselines() -> list[Row]:
    from metaopt import baselines

    found = [baselines.get(name) for name in baselines.names()]
    return [{"name": baseline.name, "rule": baseline.rule, "default_lr": baseline.default_lr} for baseline in found]


def _artifacts() -> list[Row]:
    from metaopt.artifacts import list_artifacts

    return [dict(row) for row in list_artifacts()]


_KINDS: dict[str, Callable[[], list[Row]]] = {
    "tasks": _tasks,
    "learners": _learners,
    "configs": _configs,
    "suites": _suites,
    "baselines": _baselines,
    "artifacts": _artifacts,
}
_FOR_PEOPLE = {"suites": 3}  # columns that a terminal has room for; JSON has all


@click.command("list")
@click.argument("kind", metavar="|".join(_KINDS))
@json_option
@speech_options
def command(kind: str, as_json: bool, quiet: bool) -> None:
    """List what there is of a kind, a line each (-q: the names only)."""
    if kind not in _KINDS:
        raise ConfigError(f"{kind!r} cannot be listed{nearest(kind, _KINDS)}")
    rows = _KINDS[kind]()
    print_rows(rows if as_json else [dict(list(row.items())[: _FOR_PEOPLE.get(kind)]) for row in rows], as_json, quiet)
