"""Counter-based randomness: every random number is a pure function of a 64-bit key and a counter.

A key is an int64 tensor; under `torch.func.vmap` a stack of keys gives each particle numbers of its own. Nothing is stored, so a resumed,
re-issued or re-batched computation sees the same numbers, on any device and inside compiled code.

Source: Steele, Lea, Flood, 2014, "Fast splittable pseudorandom number generators" (the SplitMix64 mixing function).
"""

import hashlib
import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["fold_in", "key", "normal", "randint", "stable_hash", "uniform"]


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)
_FOLD = _signed(0xD1B54A32D192ED03)  # keeps the keys of `fold_in` apart from the words drawn from the same key


def stable_hash(*parts: object) -> int:
    """Return a 63-bit hash of JSON-like parts; the same in every process, unlike Python's own `hash`."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def key(*parts: object) -> Tensor:
    """Return the key (int64, 0-d, CPU) that belongs to these JSON-like parts."""
    return torch.tensor(stable_hash(*parts), dtype=torch.int64)


def _shift_right(word: Tensor, bits: int) -> Tensor:
    return (word >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts int64 arithmetically


def _mix(word: Tensor) -> Tensor:
    word = (word ^ _shift_right(word, 30)) * _MIX_1
    word = (word ^ _shift_right(word, 27)) * _MIX_2
    return word ^ _shift_right(word, 31)


def fold_in(key: Tensor, data: Tensor | int) -> Tensor:
    """Return a new key for `data` (an integer or int64 tensor, e.g. an inner step) below `key`."""
    count = torch.as_tensor(data, dtype=torch.int64, device=key.device) + 1  # a Python product would not wrap
    return _mix(_mix(key ^ _FOLD) + count * _GOLDEN)


def _words(key: Tensor, shape: Sequence[int]) -> Tensor:
    count = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64, device=key.device)
    return _mix(key + count * _GOLDEN).reshape(tuple(shape))


def uniform(key: Tensor, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uniform numbers in [0, 1) of `shape`, with 24 random bits (float32) or 53 (float64)."""
    bits = 53 if dtype == torch.float64 else 24
    return _shift_right(_words(key, shape), 64 - bits).to(dtype) * 2.0**-bits


def normal(key: Tensor, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal numbers of `shape` by the Box-Muller transform of two words each."""
    pair = uniform(key, (2, *shape), dtype)
    radius = torch.sqrt(-2.0 * torch.log1p(-pair[0]))  # 1 - u lies in (0, 1]
    return radius * torch.cos(2.0 * math.pi * pair[1])


def randint(key: Tensor, shape: Sequence[int], high: int) -> Tensor:
    """Return int64 numbers in [0, high), 0 < high < 2**31; the bias is below high / 2**32."""
    return (_shift_right(_words(key, shape), 32) * high) >> 32
