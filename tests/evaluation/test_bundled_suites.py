"""What every suite that ships with the package must be: held out, pinned, buildable, and at home about as hard as its scale says."""

import hashlib
from functools import cache

import pytest
import torch

from metaopt import seeds, tasks
from metaopt.evaluation import load_suite, suite_names
from metaopt.evaluation.suites import Suite, SuiteTask, pinned_hash
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.number_shifts import is_shifted

AXES = {
    "activation": "activation",
    "architecture": "architecture",
    "batch_size": "batch",
    "data_set": "data",
    "depth": "depth",
    "gradient_noise": "gradient_noise",
    "horizon": "horizon",
    "init_scale": "init_scale",
    "loss_scale": "loss_scale",
    "parameter_scale": "parameter_scale",
    "precision": "precision",
    "width": "width",
}
# Digests of all names and hashes of a suite, levels included. One that changed has other tasks than published results.
PINNED = {
    "activation": "d051a3cb1e943419",
    "architecture": "adf7361615a2c3c8",
    "batch_size": "a74a6c7b1d4d1570",
    "data_set": "fd567112faed1247",
    "depth": "07782b66a6acb56e",
    "far": "c8d5b825ab80df58",
    "gradient_noise": "2e1eedad074ef3db",
    "horizon": "b2828683765d8fdc",
    "init_scale": "b9c75ddf5a010dc5",
    "loss_scale": "ba7ea2fa6ca9c627",
    "parameter_scale": "80d8c68047253265",
    "precision": "1959d39ac4195bf1",
    "quick": "15a2426742c37493",
    "standard": "fd8686040dc62acc",
    "width": "3f67851609a3caa8",
}
FAR = {"digits_conv", "modular_arithmetic", "matrix_completion", "neural_field", "physics_informed"}
# Families that came when results on the suites were published: another task would change every score.
LATER = {"xor", "binary_addition", "class_means"}

load = cache(load_suite)
every_suite = pytest.mark.parametrize("name", suite_names())


def everything() -> list[tuple[Suite, SuiteTask]]:
    return [(suite, task) for suite in map(load, suite_names()) for task in suite.tasks]


def digest(suite: Suite) -> str:
    text = "\n".join(f"{name} {pinned_hash(spec)}" for name, spec in suite.specs.items())
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def program(spec: tasks.TaskSpec) -> object:
    """Return the program of a task before shifts of its numbers."""
    family = tasks.get(spec.family)
    return family.program_of(spec) if isinstance(family, ShapedFamily) else family.build(spec).program


def test_there_is_a_suite_for_every_axis_and_three_lists() -> None:
    assert set(suite_names()) == {"quick", "standard", "far", *AXES}
    assert {name: suite.axis.name for name in AXES if (suite := load(name)).axis} == AXES
    assert all(load(name).axis is None for name in ("quick", "standard", "far"))


@every_suite
def test_its_tasks_are_pinned(name: str) -> None:
    assert digest(load(name)) == PINNED[name]


@every_suite
def test_its_tasks_are_held_out_and_differ(name: str) -> None:
    suite = load(name)
    assert all(spec.split == "meta_test" for spec in suite.specs.values())
    assert len({spec.hash for spec in suite.specs.values()}) == len(suite.tasks)
    assert all(50 <= spec.horizon <= 5000 for spec in suite.specs.values())
    assert len(f"{name:15}  tasks  {suite.description}") <= 80


def test_no_shape_is_one_of_meta_training() -> None:
    trained = {
        program(family.sample(template, 0, (1, 1)))
        for family in map(tasks.get, tasks.names())
        for split in ("meta_train", "meta_valid")
        for template in family.templates(split)
    }
    assert len(trained) > 200
    for suite, task in everything():
        assert program(task.spec) not in trained, (suite.name, task.name)


def test_suites_share_nothing_but_what_axes_have_at_home() -> None:
    homes = {task.spec.hash for suite, task in everything() if suite.axis is not None and task.level == suite.axis.home}
    owner: dict[str, str] = {}
    for suite, task in everything():
        if suite.axis is None or task.spec.hash not in homes:
            assert owner.setdefault(task.spec.hash, suite.name) == suite.name
    assert not homes & owner.keys()


@every_suite
def test_an_axis_varies_nothing_else(name: str) -> None:
    suite = load(name)
    if suite.axis is None or suite.axis.name in ("data", "architecture"):
        return
    bases = list(dict.fromkeys(task.base for task in suite.tasks))
    assert len(bases) == 3
    for base in bases:
        group = {task.level: task.spec for task in suite.tasks if task.base == base}
        assert list(group) == [level.name for level in suite.axis.levels]
        home = group[suite.axis.home]
        assert name in ("activation", "gradient_noise") or not is_shifted(home.values)
        assert {spec.family for spec in group.values()} == {home.family}
        assert name == "horizon" or {spec.horizon for spec in group.values()} == {home.horizon}


@pytest.mark.parametrize("name", AXES)
def test_axis_suites_are_affordable_and_begin_on_digits(name: str) -> None:
    suite = load(name)
    assert suite.axis is not None
    assert suite.baselines == ("sgd_momentum", "adamw")
    assert 2 <= len(suite.axis.levels) <= 7
    assert "digits_mlp" in {task.spec.family for task in suite.tasks if task.level == suite.axis.home}


def test_standard_has_every_family_of_its_day_once_and_far_has_the_rest() -> None:
    standard, far = ([spec.family for spec in load(name).specs.values()] for name in ("standard", "far"))
    untrained = {name for name in tasks.names() if not tasks.get(name).templates("meta_train")}
    assert len(set(standard)) == len(standard)
    assert set(far) == untrained == FAR
    assert {*standard, *far} == set(tasks.names()) - LATER


@every_suite
def test_first_losses_are_about_one_at_home_and_below_the_cap_everywhere(name: str) -> None:
    """A task whose first loss is at the cap would count every learner as diverged."""
    suite = load(name)
    for item in suite.tasks:
        task = tasks.build(item.spec)
        keys = [seeds.key("first loss", i) for i in range(3)]
        first = torch.stack([task.normalise(task.loss(task.init(key), task.heldout(key, torch.tensor(0)))) for key in keys])
        assert bool((first < 0.9 * task.program.cap).all()), (item.name, first)
        if suite.axis is None or item.level == suite.axis.home:
            assert 0.5 < float(first.mean()) < 2.0, (item.name, first)
