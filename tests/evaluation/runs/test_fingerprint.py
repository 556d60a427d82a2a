"""Fingerprints change with whatever changes a learner's numbers, and with nothing else; where that cannot be known there is none."""

import functools
import importlib
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from metaopt import learners
from metaopt.evaluation.candidates import resolve
from metaopt.evaluation.runs import fingerprint as module
from metaopt.evaluation.runs.fingerprint import fingerprint
from metaopt.learners import SCHEDULES, GradientLearner
from metaopt.learners.update_rules import ClassicRule

ADAM = learners.get("adam")
LR = {"lr": torch.tensor(0.1)}

RULE = """
    from dataclasses import dataclass

    from metaopt.learners import GradientLearner
    from own_helper import double

    STRENGTH = 2.0

    @dataclass(frozen=True)
    class Own(GradientLearner):
        '''A learner.'''
        power: float = 1.0
        bounded = True

        def advance(self, theta, task, carry, batch):
            return super().advance(theta, task, carry, double(batch))
"""
HELPER = """
    def double(value):
        return value
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write and import the modules `own_rule` and `own_helper`; call again with other sources for another version of them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(rule=RULE, helper=HELPER, load=True):
        for name, source in (("own_rule", rule), ("own_helper", helper)):
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
            if load:
                sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("own_rule")

    yield write
    for name in ("own_rule", "own_helper"):
        sys.modules.pop(name, None)


def mark(loaded, **changes):
    return fingerprint(replace(loaded.Own(ADAM.rule), **changes), LR)


@pytest.mark.parametrize("name", learners.names())
def test_every_bundled_learner_has_one_of_its_own(name):
    one, again = learners.get(name), learners.get(name)
    found = fingerprint(one, one.init_theta(0))
    assert found is not None
    assert found == fingerprint(again, again.init_theta(0))
    assert found != fingerprint(ADAM, LR)


def test_theta_options_schedule_and_class_count():
    base = fingerprint(ADAM, LR)
    assert len(base) == 32
    others = [
        fingerprint(ADAM, {"lr": torch.tensor(0.2)}),
        fingerprint(ADAM, {"lr": torch.tensor(0.1, dtype=torch.float64)}),
        fingerprint(ADAM, {"lr": torch.tensor([0.1])}),
        fingerprint(ADAM, LR | {"b1": torch.tensor(0.9)}),
        fingerprint(ADAM, {}),
        fingerprint(replace(ADAM, schedule=SCHEDULES["wsd"]), LR),
        fingerprint(replace(ADAM, weight_decay=0.1), LR),
        fingerprint(learners.get("adamw"), LR),
        fingerprint(ADAM, LR, "metaopt.evaluation.runs.group_run"),
    ]
    assert None not in others
    assert len({base, *others}) == len(others) + 1


def test_meta_parameters_count_by_name_and_not_by_their_order():
    one, other = {"a": torch.ones(2), "b": torch.zeros(2)}, {"b": torch.zeros(2), "a": torch.ones(2)}
    assert fingerprint(ADAM, one) == fingerprint(ADAM, other)
    assert fingerprint(ADAM, one) != fingerprint(ADAM, {"a": torch.zeros(2), "b": torch.ones(2)})


def test_an_artifact_has_one_fingerprint_in_every_process():
    code = (
        "from metaopt.evaluation.candidates import resolve; from metaopt.evaluation.runs.fingerprint import fingerprint;"
        "one, = resolve('celo2-base'); print(fingerprint(one.learner, one.theta))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    (one,) = resolve("celo2-base")
    assert found.strip() == fingerprint(one.learner, one.theta)


def test_bfloat16_and_half_are_read(own):
    values = {fingerprint(ADAM, {"lr": torch.tensor(0.1).to(kind)}) for kind in (torch.bfloat16, torch.float16, torch.float32)}
    assert None not in values
    assert len(values) == 3


def test_a_change_of_the_source_counts_wherever_it_is(own):
    base = mark(own())
    assert base is not None
    assert base == mark(own()), "the same modules loaded again"
    assert base == mark(own(RULE.replace("'''A learner.'''", "'''Another text.'''  # and a comment"))), "numbers do not read docstrings"
    changed = [
        mark(own(RULE.replace("double(batch))", "batch)"))),
        mark(own(helper=HELPER.replace("return value", "return 2 * value"))),
        mark(own(RULE.replace("STRENGTH = 2.0", "STRENGTH = 3.0"))),
        mark(own(), power=2.0),
    ]
    assert None not in changed
    assert len({base, *changed}) == 5


def test_values_that_were_set_after_the_import_count(own):
    loaded = own()
    base = mark(loaded)
    loaded.STRENGTH = 5.0
    strong = mark(loaded)
    loaded.Own.bounded = False
    assert len({base, strong, mark(loaded)}) == 3


def test_a_module_that_was_edited_after_its_import_has_none(own, caplog):
    loaded = own()
    assert mark(loaded) is not None
    own(RULE.replace("double(batch))", "batch)"), load=False)
    with caplog.at_level("INFO", logger=module.__name__):
        assert mark(loaded) is None
    assert "module own_rule was edited after it was imported" in caplog.text
    loaded = own()
    own(helper=HELPER.replace("return value", "return 2 * value"), load=False)
    assert mark(loaded) is None, "its helper, too"


def test_a_class_without_a_source_has_none():
    space = {"__name__": "__main__", "GradientLearner": GradientLearner}
    exec("class Typed(GradientLearner):\n    def advance(self, *a):\n        return super().advance(*a)", space)
    typed = space["Typed"]
    typed.__module__ = "nowhere_at_all"
    assert fingerprint(typed(ADAM.rule), {}) is None


def test_a_class_typed_into_a_session_with_a_file_has_none(own):
    """As `python -i script.py` leaves it: the module has a file, the class is not in it."""
    loaded = own()
    code = compile("class Typed(Own):\n    def advance(self, *a):\n        return super().advance(*a)", "<stdin>", "exec")
    exec(code, vars(loaded))
    assert fingerprint(loaded.Typed(ADAM.rule), LR) is None


@dataclass(frozen=True)
class Holding:
    """A learner as far as a fingerprint goes."""

    value: object


def content(value):
    return module._describe(Holding(value), set(), ())


def test_contents_are_read_to_the_end():
    values = [
        None, True, 1, 1.0, "1", (1,), [1], {"a": 1}, {"a": 2}, {1}, frozenset({2}), 1j, b"1",
        torch.zeros(2), torch.zeros(2, 1), torch.ones(2), np.zeros(2), np.zeros(2, np.float32),
        torch.tanh, torch.relu, content, Holding, Holding(1), Holding(Holding(1)),
        functools.partial(content, 1), functools.partial(content, 2), torch.nn.Linear(1, 1), lambda x: x, ClassicRule, textwrap,
    ]  # fmt: skip
    texts = [content(value) for value in values]
    assert len(set(texts)) == len(values)
    assert texts[:24] == [content(value) for value in values[:24]]


def test_functions_count_with_what_they_close_over():
    def scaled(factor):
        return lambda x: factor * x

    assert content(scaled(1.0)) == content(scaled(1.0)) != content(scaled(2.0))


def test_what_cannot_be_read_is_said():
    ring: list[object] = []
    ring.append(ring)
    for value in (threading.Lock(), (x for x in ()), ring):
        with pytest.raises(module._Unknown):
            content(value)


def test_code_counts_as_far_as_it_reaches(monkeypatch):
    read = []
    settings = module._settings
    monkeypatch.setattr(module, "_settings", lambda name: read.append(name) or settings(name))
    fingerprint(learners.get("celo2"), {}, "metaopt.evaluation.runs.group_run")
    assert {"metaopt.learners.update_rules.celo2", "metaopt.learners.update_rules.newton_schulz", "metaopt.inner.looped"} <= set(read)
    assert "metaopt.learners.update_rules.star" not in read
    assert not any(name.startswith(("metaopt.tasks", "metaopt.evaluation.learner", "torch", "numpy")) for name in read)
