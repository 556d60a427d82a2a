"""Nested state as bytes and back, exactly and without pickle: tensors in safetensors, structure and scalars in its header."""

import io
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from metaopt.errors import CorruptCheckpointError

__all__ = ["from_blob", "from_json", "from_torch", "to_blob", "to_json", "to_torch"]

_STRUCTURE = "structure"


def to_blob(tree: Mapping[str, Any]) -> bytes:
    """Return `tree` as one safetensors file; equal trees give equal bytes.

    Args:
        tree: nested dicts (string keys, order kept) and lists of tensors (any shape, on any device), bool, int, float (NaN and infinities
            too), str and None. Gradients and devices are not kept.

    Raises:
        TypeError: another type, with its place.
    """
    tensors: dict[str, Tensor] = {}
    structure = _encode(tree, "", tensors)
    # One metadata entry only: their order in the file is not defined.
    return safetensors.torch.save(tensors, metadata={_STRUCTURE: json.dumps(structure, separators=(",", ":"))})


def from_blob(blob: bytes) -> dict[str, Any]:
    """Return the tree that `to_blob` wrote, tensors on the CPU with their dtype and shape.

    Raises:
        CorruptCheckpointError: the bytes are cut or no blob of ours.
    """
    try:
        tensors = safetensors.torch.load(blob)
        length = int.from_bytes(blob[:8], "little")
        structure = json.loads(json.loads(blob[8 : 8 + length])["__metadata__"][_STRUCTURE])
        tree = _decode(structure, tensors)
    except (safetensors.SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
        raise CorruptCheckpointError(f"not a state blob: {error}") from error
    if not isinstance(tree, dict):
        raise CorruptCheckpointError("not a state blob: its root is no dict")
    return tree


def to_torch(state: Any) -> bytes:
    """Return `state` (what `state_dict()` of torch's optimizers and schedulers gives) as bytes that `from_torch` reads."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_torch(blob: bytes) -> Any:
    """Return what `to_torch` wrote, on the CPU; runs no code from the file.

    Raises:
        CorruptCheckpointError: the bytes are cut, or hold more than tensors and plain containers.
    """
    try:
        return torch.load(io.BytesIO(blob), weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises EOFError, RuntimeError, UnpicklingError and more, all of them meaning this
        raise CorruptCheckpointError(f"not a torch state: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


def to_json(value: Any) -> bytes:
    """Return strict JSON with sorted keys and a final newline; equal values give equal bytes.

    Raises:
        ValueError: a NaN or an infinity.
        TypeError: not JSON.
    """
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def from_json(blob: bytes) -> Any:
    """Return what `to_json` wrote.

    Raises:
        CorruptCheckpointError: the bytes are no JSON.
    """
    try:
        return json.loads(blob)
    except ValueError as error:
        raise CorruptCheckpointError(f"not JSON: {error}") from error


def _encode(node: Any, path: str, tensors: dict[str, Tensor]) -> list[Any]:
    """Return `node` as [kind, content]; tensors go under their path, whose parts are quoted so that no two paths meet."""
    match node:
        case Tensor():
            tensors[path] = node.detach().cpu().contiguous().clone()  # safetensors refuses views and shared storage
            return ["tensor", path]
        case Mapping():
            for key in node:
                if not isinstance(key, str):
                    raise TypeError(f"key {key!r} at {path or '/'!r} must be str")
            return ["dict", [[key, _encode(child, f"{path}/{quote(key, safe='')}", tensors)] for key, child in node.items()]]
        case list():
            return ["list", [_encode(child, f"{path}/{index}", tensors) for index, child in enumerate(node)]]
        case float():
            return ["float", node.hex()]
        case None | bool() | int() | str():
            return ["plain", node]
    raise TypeError(f"{type(node).__name__} at {path or '/'!r} cannot be kept: use dict, list, tensor, bool, int, float, str or None")


def _decode(node: list[Any], tensors: Mapping[str, Tensor]) -> Any:
    kind, content = node
    match kind:
        case "tensor":
            return tensors[content]
        case "dict":
            return {key: _decode(child, tensors) for key, child in content}
        case "list":
            return [_decode(child, tensors) for child in content]
        case "float":
            return float.fromhex(content)
        case "plain":
            return content
    raise ValueError(f"unknown node kind {kind!r}")
