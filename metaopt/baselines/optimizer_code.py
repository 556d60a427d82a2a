"""A fingerprint of the code of one optimizer, so that a change to Muon leaves stored curves of AdamW alone."""

import ast
import hashlib
import inspect
from functools import cache
from importlib import import_module
from typing import Any

from metaopt.baselines.code_version import meaningful_source
from metaopt.learners import GradientLearner, Learner

__all__ = ["optimizer_code", "optimizer_modules"]

_LEARNERS = "metaopt.learners."


def optimizer_code(learner: Learner) -> str:
    """Return sixteen hex digits for the modules that define a learner's formula."""
    return _digest(optimizer_modules(learner))


def optimizer_modules(learner: Learner) -> tuple[str, ...]:
    """Return the names of the modules: where the rule (or the learner without one) is defined, and what that imports of its package."""
    formula = learner.rule if isinstance(learner, GradientLearner) else learner
    waiting, known = [type(formula).__module__], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            waiting.extend(_imported(name))
    return tuple(sorted(known))


@cache
def _digest(modules: tuple[str, ...]) -> str:
    text = "\f".join(f"{name}\n{meaningful_source(inspect.getsource(import_module(name)))}" for name in modules)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def _imported(module: str) -> frozenset[str]:
    tree: Any = ast.parse(inspect.getsource(import_module(module)))
    found = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return frozenset(name for name in found if name.startswith(_LEARNERS) and not hasattr(import_module(name), "__path__"))
