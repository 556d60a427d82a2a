"""What counts as a change of code."""

import inspect
from importlib import import_module

import pytest

from metaopt import tasks
from metaopt.baselines import code_version
from metaopt.baselines.code_version import family_modules, meaningful_source
from metaopt.tasks.floors import FLOORS

code_version_module = import_module("metaopt.baselines.code_version")  # the package has a function of that name

SOURCE = '''
"""A module."""

# why
def f(x):  # shape [N]
    """Return twice x."""
    return 2 * x
'''


def test_comments_docstrings_and_spacing_do_not_count():
    bare = "def f(x):\n    return 2*x\n"
    assert meaningful_source(SOURCE) == meaningful_source(bare)


def test_code_and_indentation_count():
    assert meaningful_source("def f(x):\n    return 3 * x\n") != meaningful_source(SOURCE)
    inside = "for i in y:\n    a()\n    b()\n"
    outside = "for i in y:\n    a()\nb()\n"
    assert meaningful_source(inside) != meaningful_source(outside)


def test_a_hash_sign_in_a_string_is_no_comment():
    assert meaningful_source("x = '# one'\n") != meaningful_source("x = '# two'\n")


def test_families_have_their_own_versions():
    versions = {code_version(family) for family in ("quadratic", "digits_mlp", "mnist_mlp")}
    assert len(versions) == 3
    assert family_modules("digits_mlp") == family_modules("digits_conv"), "one module makes both"
    assert code_version("digits_vit") != code_version("digits_resnet"), "their floors differ"


def test_a_family_is_made_of_what_it_imports_and_of_nothing_else():
    modules = family_modules("digits_mlp")
    parts = ("data.digits", "data.data_set", "families.digits", "families.images", "families.shaped", "families.supervised")
    for part in (*parts, "models.mlp", "models.parts", "sampling", "streams.arrays", "task"):
        assert f"metaopt.tasks.{part}" in modules, part
    others = ("data.mnist", "data.files", "families.mnist", "families.quadratic", "families.language", "models.recurrent", "augmentations")
    for part in (*others, "floors", "data", "models", "families"):
        assert f"metaopt.tasks.{part}" not in modules, part
    assert "metaopt.tasks" not in modules
    assert "metaopt.tasks.models.mlp" not in family_modules("quadratic")


def test_every_family_has_its_own_module_among_those_that_make_it():
    for name in tasks.names():
        modules = family_modules(name)
        assert any(part.startswith("metaopt.tasks.families.") for part in modules), name
        assert len(modules) < 30, name


def test_names_are_followed_to_where_they_are_defined():
    assert code_version_module._defining("metaopt.tasks.models", "ConvNet") == "metaopt.tasks.models.conv"
    assert code_version_module._defining("metaopt.tasks", "TaskSpec") == "metaopt.tasks.task"
    assert code_version_module._defining("metaopt.tasks", "sampling") == "metaopt.tasks.sampling"
    assert code_version_module._defining("metaopt.tasks", "image_family") == "metaopt.tasks"
    assert code_version_module._defining("metaopt.tasks.models.mlp", "MLP") == "metaopt.tasks.models.mlp"


def fresh_version(family: str) -> str:
    code_version.cache_clear()
    return code_version(family)


def test_a_changed_module_changes_the_versions_of_the_families_made_of_it(monkeypatch: pytest.MonkeyPatch):
    names = ("quadratic", "digits_mlp", "mnist_mlp")
    before = {name: fresh_version(name) for name in names}
    source = inspect.getsource

    def changed(module):
        return source(module) + ("\nx = 1\n" if module.__name__ == "metaopt.tasks.data.mnist" else "")

    monkeypatch.setattr(code_version_module.inspect, "getsource", changed)
    after = {name: fresh_version(name) for name in names}
    monkeypatch.undo()
    assert {name for name in names if before[name] != after[name]} == {"mnist_mlp"}
    assert {name: fresh_version(name) for name in names} == before


def test_a_floor_counts_for_its_own_family_only(monkeypatch: pytest.MonkeyPatch):
    before = {name: fresh_version(name) for name in ("digits_mlp", "mnist_mlp")}
    monkeypatch.setitem(FLOORS, "mnist_mlp", 0.123)
    after = {name: fresh_version(name) for name in before}
    monkeypatch.undo()
    code_version.cache_clear()
    assert before["digits_mlp"] == after["digits_mlp"]
    assert before["mnist_mlp"] != after["mnist_mlp"]


def test_what_applies_shifts_counts_for_shifted_tasks_only(monkeypatch: pytest.MonkeyPatch):
    code_version.cache_clear()
    before = [code_version("digits_mlp", shifted) for shifted in (False, True)]
    assert before[0] != before[1]
    source = inspect.getsource
    for module in ("number_shifts", "augmentations.scaled_loss", "augmentations.reparametrisation", "augmentations.draws"):

        def changed(other, name=f"metaopt.tasks.{module}"):
            return source(other) + ("\nx = 1\n" if other.__name__ == name else "")

        monkeypatch.setattr(code_version_module.inspect, "getsource", changed)
        code_version.cache_clear()
        after = [code_version("digits_mlp", shifted) for shifted in (False, True)]
        assert after[0] == before[0], module
        assert after[1] != before[1], module
    monkeypatch.undo()
    code_version.cache_clear()
    assert "metaopt.tasks.shifts" not in code_version_module._with_imports(code_version_module._SHIFTS), "makes specs, not tasks"
