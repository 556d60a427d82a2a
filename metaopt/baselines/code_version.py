"""A fingerprint of the code that decides what a baseline's curve looks like, so that a stored curve never outlives it."""

import ast
import hashlib
import inspect
import io
import tokenize
from functools import cache
from importlib import import_module

from metaopt import tasks

__all__ = ["code_version", "meaningful_source"]

_SHARED = (
    "metaopt.seeds",
    "metaopt.tasks.task",
    "metaopt.tasks.streams.arrays",
    "metaopt.tasks.models.parts",
    "metaopt.tasks.models.mlp",
    "metaopt.tasks.models.conv",
    "metaopt.learners.learner",
    "metaopt.learners.update_rules.classic",
    "metaopt.learners.update_rules.rule",
    "metaopt.inner.step",
    "metaopt.inner.run",
    "metaopt.baselines.runs",
)


@cache
def code_version(family: str) -> str:
    """Return sixteen hex digits for the code behind the curves of one task family.

    It covers the family's own module, streams and models, seeds, the runner, the learner and the classic rules. Comments, docstrings, blank
    lines and spacing do not count; versions of Python and torch are recorded beside a curve but do not make it stale.
    """
    own = type(tasks.get(family)).__module__
    text = "\f".join(meaningful_source(inspect.getsource(import_module(name))) for name in (own, *_SHARED))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


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
