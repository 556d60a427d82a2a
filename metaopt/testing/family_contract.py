"""What the registry, sources of episodes and splits expect of a task family, as clauses that run on any family.

A family that keeps them, and whose tasks keep those of `TASK_CLAUSES`, can be meta-trained on, resumed and evaluated.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from metaopt.errors import ConfigError
from metaopt.tasks import SPLITS, Family, Task, TaskSpec, check_templates
from metaopt.testing.contract import Contract, ContractError, require
from metaopt.testing.global_randomness import global_randomness, same_leaves
from metaopt.testing.task_contract import TASK_CLAUSES, check_task

__all__ = ["FAMILY_CLAUSES", "check_family"]

FAMILY: Contract["_Subject"] = Contract()
_HORIZON = (20, 200)
_SEEDS = (0, 1, 12345)
_OFFERS = {"stream", "model"}


@dataclass(frozen=True)
class _Subject:
    """A family and the templates of each split that are looked at."""

    family: Family
    templates: tuple[tuple[str, str], ...]  # (split, template)

    def specs(self) -> Iterator[tuple[str, str, TaskSpec]]:
        for split, template in self.templates:
            for seed in _SEEDS:
                yield split, template, self.family.sample(template, seed, _HORIZON)


@FAMILY.clause
def named(subject: _Subject) -> None:
    """Its name is a text, what it offers is among "stream" and "model", and some split has a template."""
    family = subject.family
    require(isinstance(family.name, str) and bool(family.name), f"name {family.name!r}")
    require(isinstance(family.offers, tuple) and set(family.offers) <= _OFFERS, f"offers {family.offers!r}")
    require(bool(subject.templates), "no template in any split")
    for split in SPLITS:
        templates = family.templates(split)
        require(len(set(templates)) == len(templates), f"a template of {split} that is listed twice: {templates}")


@FAMILY.clause
def samples(subject: _Subject) -> None:
    """`sample` returns a spec of that family, template and split with a horizon in its range, the same one for the same seed."""
    for split, template, spec in subject.specs():
        named = (spec.family, spec.template, spec.split)
        require(named == (subject.family.name, template, split), f"a spec of {named} for template {template!r} of {split}")
        require(_HORIZON[0] <= spec.horizon <= _HORIZON[1], f"horizon {spec.horizon} for the range {list(_HORIZON)}")
    for (_, template, one), (_, _, two) in zip(subject.specs(), subject.specs(), strict=True):
        require(one == two, f"{two.values} after {one.values} for the same seed and template {template!r}")


@FAMILY.clause
def spec_is_json(subject: _Subject) -> None:
    """A spec survives JSON: the same values, types and hash after `to_json` and `from_json`."""
    for _, template, spec in subject.specs():
        again = TaskSpec.from_json(spec.to_json())
        changed = [name for name in spec.values if type(again.values.get(name)) is not type(spec.values[name])]
        require(not changed, f"values of {template!r} that are no JSON scalars: {', '.join(changed)}")
        require(again == spec and again.hash == spec.hash, f"{again} after {spec}")
        nested = [name for name, value in spec.values.items() if not isinstance(value, int | float | str)]
        require(not nested, f"values of {template!r} that are no scalars: {', '.join(nested)}")


@FAMILY.clause
def disjoint_splits(subject: _Subject) -> None:
    """No template and no program is in two splits."""
    check_templates(subject.family)


@FAMILY.clause
def isolated_build(subject: _Subject) -> None:
    """Sampling and building neither follow nor move the global generators of torch, numpy and `random`."""
    for _, template in subject.templates:

        def built(template: str = template) -> Any:
            task = subject.family.build(subject.family.sample(template, 0, _HORIZON))
            return task.numbers, task.shared

        built()  # a data set that is made on first use may be kept
        touched = global_randomness(built)
        require(not touched, f"template {template!r}: it {', '.join(touched)}")


@FAMILY.clause
def deterministic_build(subject: _Subject) -> None:
    """A spec, or one that went through JSON, builds an equal program (of equal hash) with the same tensors every time."""
    for _, template, spec in subject.specs():
        one, two = subject.family.build(spec), subject.family.build(TaskSpec.from_json(spec.to_json()))
        require(one.program == two.program and hash(one.program) == hash(two.program), f"another program for one spec of {template!r}")
        for name, tensors, others in (("numbers", one.numbers, two.numbers), ("data", one.shared, two.shared)):
            require(tensors.keys() == others.keys() and same_leaves(tensors, others), f"other {name} for one spec of {template!r}")


@FAMILY.clause
def one_shape(subject: _Subject) -> None:
    """Tasks of one template share a program and the shapes of their numbers, whatever the seed and the horizon."""
    for _, template in subject.templates:
        tasks = [subject.family.build(subject.family.sample(template, seed, horizon)) for seed in _SEEDS for horizon in (_HORIZON, (7, 7))]
        for task in tasks[1:]:
            require(task.program == tasks[0].program, f"{task.program} after {tasks[0].program} for template {template!r}")
            require(_layout(task) == _layout(tasks[0]), f"numbers {_layout(task)} after {_layout(tasks[0])} for template {template!r}")


@FAMILY.clause
def single_precision(subject: _Subject) -> None:
    """Built tasks lie on the CPU; numbers and data are float32 where they are floating, and the horizon is that of the spec."""
    for _, template, spec in subject.specs():
        task = subject.family.build(spec)
        require(float(task.horizon) == spec.horizon, f"horizon {float(task.horizon)} for a spec of {spec.horizon}")
        for name, value in {**task.shared, **task.numbers}.items():
            kind = f"{name!r} of {template!r} in {value.dtype} on {value.device}"
            require(value.device.type == "cpu" and (not value.is_floating_point() or value.dtype == torch.float32), kind)


FAMILY_CLAUSES = FAMILY.sentences


def _layout(task: Task) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(value.shape), str(value.dtype)) for name, value in task.numbers.items()}


def check_family(
    family: Family, *, templates_per_split: int = 1, skip: Collection[str] = (), only: Collection[str] | None = None
) -> tuple[str, ...]:
    """Check every clause of `FAMILY_CLAUSES` on a family, then every clause of `TASK_CLAUSES` on one task a template looked at.

    Args:
        family: registered or not.
        templates_per_split: how many templates of each split are looked at, the first ones; `disjoint_splits` looks at all.
        skip: clauses of either contract that are left out.
        only: clauses of either contract, instead of all.

    Returns:
        The names of the clauses that were checked.

    Raises:
        ContractError: the first clause that is broken, with what was observed.
        ConfigError: a clause of that name does not exist.
    """
    known = {**FAMILY_CLAUSES, **TASK_CLAUSES}
    for name in (*skip, *(only or ())):
        if name not in known:
            raise ConfigError(f"clause {name!r} does not exist; there are {', '.join(known)}")

    def of(clauses: dict[str, str]) -> list[str]:
        return [name for name in clauses if name not in skip and (only is None or name in only)]

    looked_at = tuple((split, template) for split in SPLITS for template in family.templates(split)[:templates_per_split])
    checked = FAMILY.check(_Subject(family, looked_at), only=of(FAMILY_CLAUSES))
    if not (wanted := of(TASK_CLAUSES)):
        return checked
    for split, template in looked_at:
        task = family.build(family.sample(template, 0, _HORIZON))
        try:
            check_task(task, only=wanted)
        except ContractError as error:
            raise ContractError(error.clause, TASK_CLAUSES[error.clause], f"{error.observed}, template {template!r} of {split}") from error
    return (*checked, *wanted)
