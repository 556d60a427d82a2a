"""A fingerprint of the code that decides what a baseline's curve looks like, so that a stored curve never outlives it."""

import ast
import hashlib
import importlib.util
import inspect
import io
import sys
import tokenize
from functools import cache
from importlib import import_module

from metaopt import tasks
from metaopt.tasks.floors import floor

__all__ = ["code_version", "family_modules", "meaningful_source"]

_RUNNER = (
    "metaopt.seeds",
    "metaopt.tasks.task",
    "metaopt.learners.learner",
    "metaopt.learners.update_rules.classic",
    "metaopt.learners.update_rules.rule",
    "metaopt.inner.step",
    "metaopt.inner.run",
    "metaopt.baselines.runs",
)
_TASKS = "metaopt.tasks"
_SHIFTS = "metaopt.tasks.number_shifts"
_APART = ("metaopt.tasks.floors",)  # a table of all families: only the family's own entry counts


@cache
def code_version(family: str, shifted: bool = False) -> str:
    """Return sixteen hex digits for the code behind the curves of one task family.

    It covers `family_modules`, the family's floor, seeds, the runner, the learner and the classic rules, and for shifted tasks what applies
    their shifts. Comments, docstrings, blank lines and spacing do not count; versions of Python and torch are recorded beside a curve but
    do not make it stale.
    """
    names = sorted({*family_modules(family), *_RUNNER, *(_with_imports(_SHIFTS) if shifted else ())})
    text = "\f".join([*(f"{name}\n{meaningful_source(inspect.getsource(import_module(name)))}" for name in names), repr(floor(family))])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def family_modules(family: str) -> tuple[str, ...]:
    """Return the names of the modules that make a family: where it is defined, and what that imports of `metaopt.tasks`, and so on.

    Imports are read from the source, each name where it is defined and not in the package that hands it on, so that a new data set, model
    or family changes no other family's modules.
    """
    found = tasks.get(family)
    bundled = [name for name in list(sys.modules) if name.startswith(f"{_TASKS}.families.")]
    holding = [name for name in bundled if any(value is found for value in vars(sys.modules[name]).values())]
    return tuple(sorted(_with_imports(*holding, type(found).__module__)))


def _with_imports(*modules: str) -> set[str]:
    """Return modules and what they import of `metaopt.tasks`, directly or not."""
    waiting, known = list(modules), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in known and name not in _APART:
            known.add(name)
            waiting.extend(_imported(name))
    return known


@cache
def _imported(module: str) -> frozenset[str]:
    """Return the modules of `metaopt.tasks` that define what a module imports; for a package, none."""
    if _is_package(module):
        return frozenset()
    nodes = [node for node in ast.walk(_tree(module)) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_TASKS)]
    return frozenset(_defining(str(node.module), alias.name) for node in nodes for alias in node.names)


def _defining(module: str, name: str) -> str:
    """Return the module in which a name that can be imported from `module` is defined."""
    if not _is_package(module):
        return module
    if importlib.util.find_spec(f"{module}.{name}") is not None:
        return f"{module}.{name}"
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return _defining(str(node.module), next(alias.name for alias in node.names if (alias.asname or alias.name) == name))
    return module


def _is_package(module: str) -> bool:
    return hasattr(import_module(module), "__path__")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(import_module(module)))


def meaningful_source(source: str) -> str:
    """Return Python source without comments, docstrings, blank lines and spacing; indentation stays."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            first = node.body[0]
            for row in range(first.lineno - 1, first.end_lineno or first.lineno):
                lines[row] = ""
    kept = ((len(line) - len(line.lstrip()), "".join(line.split())) for line in lines)
    return "\n".join(f"{indent} {text}" for indent, text in kept if text)
