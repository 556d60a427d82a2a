"""Writes files as `flax.serialization` does, from the description of msgpack alone: no package is used that the reader uses."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

CHUNKED = "__msgpack_chunked_array__"


def packed(value: Any) -> bytes:
    """Return the msgpack of None, booleans, integers, floats, text, bytes, lists and maps; arrays and numpy scalars as extensions."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case np.ndarray():
            return extension(1, array_bytes(value))
        case np.generic():
            return extension(3, array_bytes(np.asarray(value)))
        case int():
            return bytes([value]) if 0 <= value < 128 else b"\xd3" + struct.pack(">q", value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case complex():
            return extension(2, b"\x92" + packed(value.real) + packed(value.imag))
        case str():
            text = value.encode()
            return (bytes([0xA0 | len(text)]) if len(text) < 32 else b"\xda" + struct.pack(">H", len(text))) + text
        case bytes():
            return b"\xc6" + struct.pack(">I", len(value)) + value
        case list() | tuple():
            return b"\xdc" + struct.pack(">H", len(value)) + b"".join(map(packed, value))
        case dict():
            return packed_pairs(list(value.items()))
    raise TypeError(type(value))


def packed_pairs(pairs: list[tuple[Any, Any]]) -> bytes:
    """Return the msgpack of a map, whose keys may repeat."""
    return b"\xdf" + struct.pack(">I", len(pairs)) + b"".join(packed(key) + packed(value) for key, value in pairs)


def extension(code: int, content: bytes) -> bytes:
    """Return a msgpack extension of any length."""
    return b"\xc9" + struct.pack(">Ib", len(content), code) + content


def array_bytes(value: np.ndarray, dtype: str | None = None, shape: Any = None) -> bytes:
    """Return the inner message of an array; `dtype` and `shape` tell lies."""
    return packed([list(value.shape) if shape is None else shape, dtype or value.dtype.name, value.tobytes("C")])


def in_pieces(value: np.ndarray, size: int) -> dict[str, Any]:
    """Return the map that stands for an array of more than a gibibyte, in pieces of `size` elements."""
    flat = value.reshape(-1)
    pieces = [flat[i : i + size] for i in range(0, flat.size, size)]
    counted = {str(i): piece for i, piece in enumerate(pieces)}
    return {CHUNKED: True, "shape": {str(i): side for i, side in enumerate(value.shape)}, "chunks": counted}


def write(path: Path, tree: Any) -> Path:
    """Write a tree of maps and arrays to a file and return its path."""
    path.write_bytes(packed(tree))
    return path
