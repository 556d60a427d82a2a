"""Read the tree of arrays in a file that `flax.serialization` wrote; flax and jax are not needed, and nothing in the file is run.

The file is one msgpack object: maps with text keys, arrays as extension type 1 (a nested msgpack of shape, dtype name and bytes in C
order), native complex numbers as type 2, numpy scalars as type 3. Arrays of a gibibyte and more lie in pieces, in a map with the key
`__msgpack_chunked_array__`. A named tuple is a map of its fields; before 2022 it was a map of `name`, `fields` and `values`.

Source: the format that `flax.serialization` documents beside its code.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaopt.errors import ConfigError, UnsafeArtifactError

__all__ = ["Array", "Tree", "flat_arrays", "read_tree"]

Array = NDArray[Any]
Tree = dict[str, Any]  # text keys, and at the leaves arrays, numbers, text or None

_MAX_BYTES = 1 << 30
_MAX_KEYS, _MAX_LIST, _MAX_RANK = 1 << 16, 1 << 10, 8
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_DTYPES = {name: np.dtype(name) for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "bool")}
_DTYPES |= {f"u{name}": np.dtype(f"u{name}") for name in _DTYPES if name.startswith("int")}


def read_tree(path: str | os.PathLike[str]) -> Tree:
    """Return the tree in the file; its arrays are read-only views.

    Raises:
        ConfigError: no such file, or the package `msgpack` is missing.
        UnsafeArtifactError: a file that is too large, damaged, a pickle, or holds what no tree of arrays holds.
    """
    place = str(path)
    content = _content(Path(path))
    try:
        import msgpack  # only here: most processes never read such a file
    except ImportError as error:
        raise ConfigError(f"{place}: reading files of flax needs the package msgpack; pip install msgpack") from error

    def limited(data: bytes, raw: bool, **more: Any) -> Any:
        limits = {"max_array_len": _MAX_LIST, "max_map_len": _MAX_KEYS}
        return msgpack.unpackb(data, raw=raw, use_list=False, strict_map_key=True, **limits, **more)

    def extension(code: int, data: bytes) -> Any:
        if code == _COMPLEX:
            raise UnsafeArtifactError(f"{place}: holds a complex number, which no update rule has")
        if code not in (_ARRAY, _SCALAR):
            raise UnsafeArtifactError(f"{place}: holds the unknown extension type {code}; only arrays and numbers are read")
        return _array(limited(data, raw=True), place)

    try:
        tree = limited(content, raw=False, ext_hook=extension, object_pairs_hook=lambda pairs: _node(pairs, place))
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise UnsafeArtifactError(f"{place}: damaged, or no file of flax: {str(error)[:200] or type(error).__name__}") from error
    if not isinstance(tree, dict):
        raise UnsafeArtifactError(f"{place}: holds {type(tree).__name__}, no tree of arrays")
    return tree


def flat_arrays(tree: Mapping[str, Any], place: str) -> dict[str, Array]:
    """Return the arrays by their path, keys joined with '/'; empty maps leave no trace.

    Raises:
        UnsafeArtifactError: a leaf that is no array, or two leaves with one path.
    """
    arrays: dict[str, Array] = {}
    pending: list[tuple[str, Any]] = [(str(key), value) for key, value in tree.items()]
    while pending:
        path, value = pending.pop()
        if isinstance(value, Mapping):
            pending += [(f"{path}/{key}", inner) for key, inner in value.items()]
        elif not isinstance(value, np.ndarray):
            raise UnsafeArtifactError(f"{place}: {path!r} is {type(value).__name__}, no array")
        elif path in arrays:
            raise UnsafeArtifactError(f"{place}: {path!r} is there twice")
        else:
            arrays[path] = value
    return arrays


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give the file of a checkpoint") from error
    if len(content) > _MAX_BYTES:
        raise UnsafeArtifactError(f"{path}: is larger than {_MAX_BYTES} bytes; give the file with the meta-parameters alone")
    if content[:1] == b"\x80" and content[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and content[-1:] == b".":
        raise UnsafeArtifactError(f"{path}: is a pickle, which runs code when it is read; save it with flax.serialization.to_bytes")
    return content


def _node(pairs: list[tuple[str, Any]], place: str) -> Any:
    """Return a map, or what the map stands for: an array in pieces, a named tuple of old."""
    node = dict(pairs)
    if len(node) < len(pairs):
        raise UnsafeArtifactError(f"{place}: a key is there twice")
    if _CHUNKED in node:
        return _joined(node, place)
    if node.keys() == {"name", "fields", "values"} and isinstance(node["fields"], dict) and isinstance(node["values"], dict):
        if node["fields"].keys() != node["values"].keys():
            raise UnsafeArtifactError(f"{place}: a named tuple lacks fields or values")
        return {str(field): node["values"][index] for index, field in node["fields"].items()}
    return node


def _array(parts: Any, place: str) -> Array:
    if not isinstance(parts, tuple) or len(parts) != 3 or not all(isinstance(part, bytes) for part in parts[1:]):
        raise UnsafeArtifactError(f"{place}: an array is not made of shape, dtype and bytes")
    shape, name, content = _shape(parts[0], place), parts[1].decode("ascii", "replace"), parts[2]
    if name == "bfloat16":  # the upper half of a float32
        wide = _filled(content, np.dtype("uint16"), shape, name, place).astype(np.uint32) << 16
        return np.asarray(wide, dtype=np.uint32).view(np.float32)
    if name not in _DTYPES:
        raise UnsafeArtifactError(f"{place}: an array has dtype {name[:40]!r}; known are bfloat16, {', '.join(_DTYPES)}")
    return _filled(content, _DTYPES[name], shape, name, place)


def _filled(content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], name: str, place: str) -> Array:
    expected = math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise UnsafeArtifactError(f"{place}: an array {name} {shape} has {len(content)} bytes where it needs {expected}")
    return np.frombuffer(content, dtype.newbyteorder("<")).reshape(shape)


def _joined(node: Tree, place: str) -> Array:
    shape = _shape(_counted(node.get("shape"), place), place)
    chunks = _counted(node.get("chunks"), place)
    if node.keys() != {_CHUNKED, "shape", "chunks"} or not chunks or not all(isinstance(chunk, np.ndarray) for chunk in chunks):
        raise UnsafeArtifactError(f"{place}: an array in pieces is not made of shape and chunks")
    whole: Array = np.concatenate([chunk.reshape(-1) for chunk in chunks])
    if {chunk.dtype for chunk in chunks} != {whole.dtype} or whole.size != math.prod(shape):
        raise UnsafeArtifactError(f"{place}: an array in pieces of shape {shape} has {whole.size} elements, or pieces of several dtypes")
    return whole.reshape(shape)


def _counted(items: Any, place: str) -> tuple[Any, ...]:
    """Return the values of a map whose keys are 0, 1, ... in text."""
    if not isinstance(items, dict) or items.keys() != {str(i) for i in range(len(items))}:
        raise UnsafeArtifactError(f"{place}: the pieces of an array are not counted from 0")
    return tuple(items[str(i)] for i in range(len(items)))


def _shape(sizes: Any, place: str) -> tuple[int, ...]:
    whole = isinstance(sizes, tuple) and len(sizes) <= _MAX_RANK
    if not whole or not all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= _MAX_BYTES for size in sizes):
        raise UnsafeArtifactError(f"{place}: an array has the shape {str(sizes)[:60]}")
    return tuple(sizes)
