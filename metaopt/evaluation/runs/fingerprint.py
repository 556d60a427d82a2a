"""A fingerprint of a learner: what it holds, and the code that it runs; the same in every process, or none at all.

What a learner holds is read as pickle reads it, piece by piece. Its code is the source of the modules of all classes and functions found on
the way, base classes included, and of what those modules import. Code of installed packages counts where it defines the learner, but not
what it imports; torch's stands for its version.

Where the source cannot be had, or is not what runs (a class typed into a session, a module edited after it was imported), there is no
fingerprint: a result must never be filed under code that did not make it.
"""

import ast
import hashlib
import importlib.util
import inspect
import logging
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaopt.baselines.code_version import meaningful_source
from metaopt.learners import Learner

__all__ = ["fingerprint"]

_log = logging.getLogger(__name__)

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_SETTINGS = (bool, int, float, str)
_BY_VERSION = frozenset({*sys.stdlib_module_names, "torch", "numpy"}) - {"__main__"}
_INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))


class _Unknown(Exception):
    """No fingerprint, and why."""


def fingerprint(learner: Learner, theta: Mapping[str, Tensor], *runner: str) -> str | None:
    """Return 32 hex digits of a learner, its meta-parameters and their code, or None where they cannot be known.

    Args:
        learner: any kind.
        theta: its meta-parameters.
        runner: modules whose code counts, too.
    """
    modules = set(runner)
    try:
        content = _describe([learner, dict(sorted(theta.items()))], modules, ())  # safetensors hands tensors over in any order
        code = _source_digest(modules)
    except _Unknown as reason:
        _log.info("runs of %s are not kept: %s", type(learner).__name__, reason)
        return None
    return hashlib.blake2b(f"{content}\f{code}".encode(), digest_size=16).hexdigest()


def _source_digest(modules: set[str]) -> str:
    """Return a digest of the source of modules, and of what they import of code that is not installed.

    Raises:
        _Unknown: a source cannot be read, or is not what was imported.
    """
    waiting, known = [name for name in modules if name.partition(".")[0] not in _BY_VERSION], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            waiting.extend(_imports(name) if _is_followed(name) else ())
    text = "\f".join(f"{name}\n{_meaning(_current_source(name))}\n{_settings(name)}" for name in sorted(known))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _describe(value: Any, modules: set[str], above: tuple[int, ...]) -> str:
    """Return a text that is equal for equal contents, and enter the modules of their classes and functions."""
    if isinstance(value, _PLAIN):
        return f"{type(value).__qualname__} {value!r}"
    if id(value) in above:
        raise _Unknown(f"{type(value).__name__} refers to itself")

    def parts(*values: Any) -> str:
        return "[" + ", ".join(_describe(part, modules, (*above, id(value))) for part in values) + "]"

    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"tensor {value.dtype} {tuple(value.shape)} {hashlib.blake2b(content).hexdigest()}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"array {value.dtype} {value.shape} {hashlib.blake2b(value.tobytes()).hexdigest()}"
    if type(value) is dict:
        return f"dict {parts(*value, *value.values())}"
    if type(value) in (list, tuple):
        return f"{type(value).__name__} {parts(*value)}"
    if isinstance(value, set | frozenset):
        return f"set {sorted(_describe(part, modules, (*above, id(value))) for part in value)}"
    if isinstance(value, ModuleType):
        modules.add(value.__name__)
        return f"module {value.__name__}"
    if isinstance(value, type):
        modules.update(base.__module__ for base in value.__mro__)
        return f"class {value.__module__}.{value.__qualname__}"
    if isinstance(value, FunctionType):
        modules.add(value.__module__)
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        code = f"{value.__module__}.{value.__qualname__}:{value.__code__.co_firstlineno}"
        return f"function {code} {parts(value.__defaults__, value.__kwdefaults__, cells)}"
    if isinstance(value, MethodType):
        return f"method {parts(value.__func__, value.__self__)}"
    if isinstance(value, BuiltinFunctionType):
        return f"builtin {value.__module__}.{value.__qualname__}"
    try:
        reduced = value.__reduce_ex__(4)
    except Exception as error:  # whatever a class may raise: it has no contents that can be read
        raise _Unknown(f"{type(value).__name__} cannot be taken apart: {error}") from error
    if isinstance(reduced, str):
        return f"{_describe(type(value), modules, above)} {reduced}"
    make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    return f"{_describe(type(value), modules, above)} {parts(make, arguments, state, [*(items or ())], [*(pairs or ())])}"


def _is_followed(module: str) -> bool:
    """Return whether what a module imports counts: of metaopt, where tasks have a version of their own, and of code not installed."""
    top = module.partition(".")[0]
    if top == "metaopt":
        return not module.startswith("metaopt.tasks")
    if top in _BY_VERSION:
        return False
    try:
        spec = sys.modules[top].__spec__ if top in sys.modules else importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else [_file(module)]
    return any(place is not None and not any(Path(place).is_relative_to(folder) for folder in _INSTALLED) for place in places)


def _imports(module: str) -> Iterator[str]:
    """Yield the modules that a module imports anywhere in its source; for a name that a package hands on, where it is defined."""
    for node in ast.walk(_parsed(_current_source(module))):
        if isinstance(node, ast.Import):
            wanted = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [(_absolute(node, module), alias.name) for alias in node.names]
        else:
            continue
        found = (_defining(target, name) for target, name in wanted if _is_followed(target))
        yield from (name for name in found if name is not None and _is_followed(name))


def _absolute(node: ast.ImportFrom, module: str) -> str:
    """Return the absolute name of the module that `node`, a statement of `module`, imports from."""
    package = module if hasattr(sys.modules[module], "__path__") else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


def _defining(target: str, name: str) -> str | None:
    """Return the module that defines `name` of module `target` (without a name, the module), or None if it cannot be imported here."""
    try:
        module = import_module(target)
        if not name or not hasattr(module, "__path__"):
            return target
        if importlib.util.find_spec(f"{target}.{name}") is not None:
            return import_module(f"{target}.{name}").__name__
    except Exception:  # an optional import of the learner's; one that fails here is no part of what runs
        return None
    for node in _parsed(_current_source(target)).body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return _defining(_absolute(node, target), next(one.name for one in node.names if (one.asname or one.name) == name))
    return target


def _current_source(module: str) -> str:
    """Return the source of an imported module, if that is what was imported."""
    found = sys.modules.get(module)
    if found is None:
        raise _Unknown(f"module {module} is not imported")
    try:
        source = inspect.getsource(found)
    except OSError as error:
        if _file(module) is not None and not Path(str(_file(module))).stat().st_size:
            return ""
        raise _Unknown(f"no source of module {module}: {error}") from error
    except TypeError as error:
        raise _Unknown(f"no source of module {module}: {error}") from error
    on_disk = _codes(source)
    for function in _functions(found):
        file = function.__code__.co_filename
        generated = file == "<string>"  # by dataclasses
        if file.startswith("<") and not generated:
            raise _Unknown(f"{function.__qualname__} of module {module} was not imported from a file")
        if file == _file(module) and function.__code__ not in on_disk:
            raise _Unknown(f"module {module} was edited after it was imported")
    return source


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Yield the functions and methods that a module defines."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    for value in own:
        for member in [value, *vars(value).values()] if isinstance(value, type) else [value]:
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, FunctionType):
                yield function


def _settings(module: str) -> list[tuple[str, str]]:
    """Return the plain values of a module and its classes, as they are now: a source does not know what has been set since."""
    found = sys.modules[module]
    classes = {f"{name}.": vars(value) for name, value in vars(found).items() if isinstance(value, type) and value.__module__ == module}
    spaces = {"": vars(found), **classes}
    return sorted(
        (f"{prefix}{name}", repr(value))
        for prefix, space in spaces.items()
        for name, value in space.items()
        if isinstance(value, _SETTINGS) and not name.startswith("__")
    )


def _file(module: str) -> str | None:
    return getattr(sys.modules.get(module), "__file__", None)


@cache
def _meaning(source: str) -> str:
    return meaningful_source(source)


@cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def _codes(source: str) -> frozenset[CodeType]:
    """Return all code objects that a source compiles to."""
    waiting, found = [compile(source, "<source>", "exec", dont_inherit=True)], set[CodeType]()
    while waiting:
        code = waiting.pop()
        found.add(code)
        waiting.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
    return frozenset(found)
