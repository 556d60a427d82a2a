"""Random numbers inside a step: counter-based, in arithmetic that never overflows, so that compiled code may hold it.

`metaopt.seeds` mixes 64-bit words that wrap around, which compiled C++ leaves undefined. Here every word is below 2**32 and lives in an
int64: sums stay below 2**34 and are masked. A key is an int64 tensor that `metaopt.seeds` drew outside the step; under `torch.func.vmap`
each particle has its own. The same numbers come out eager and compiled, on any device.

Source: Salmon, Moraes, Dror, Shaw, 2011, "Parallel random numbers: as easy as 1, 2, 3" (Threefry-2x32; 13 rounds pass BigCrush).
"""

import math

import torch
from torch import Tensor

from metaopt.tasks.task import Params

__all__ = ["normal", "normal_like", "threefry"]

_WORD = (1 << 32) - 1
_PARITY = 0x1BD11BDA
_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)


def threefry(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor], rounds: int = 13) -> tuple[Tensor, Tensor]:
    """Return two 32-bit words for each counter of two 32-bit words, under a key of two; all int64 in [0, 2**32), broadcast together."""
    words = (*key, key[0] ^ key[1] ^ _PARITY)
    left, right = (counter[0] + words[0]) & _WORD, (counter[1] + words[1]) & _WORD
    for i in range(rounds):
        rotation = _ROTATIONS[i % 8]
        left = (left + right) & _WORD
        right = (((right << rotation) & _WORD) | (right >> (32 - rotation))) ^ left
        if i % 4 == 3:
            injected = i // 4 + 1
            left = (left + words[injected % 3]) & _WORD
            right = (right + words[(injected + 1) % 3] + injected) & _WORD
    return left, right


def normal(key: Tensor, count: int, dtype: torch.dtype = torch.float32, stream: int = 0) -> Tensor:
    """Return standard normal numbers [count] for a key (int64, 0-d) and a stream, by the Box-Muller transform; at most 6.7 in size."""
    counter = torch.arange((count + 1) // 2, dtype=torch.int64, device=key.device)
    left, right = threefry((key & _WORD, (key >> 32) & _WORD), (counter, torch.full_like(counter, stream)))
    radius = torch.sqrt(-2.0 * torch.log((left + 1).to(dtype) * 2.0**-32))  # the argument lies in (0, 1]
    angle = right.to(dtype) * (2.0 * math.pi * 2.0**-32)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)])[:count]


def normal_like(key: Tensor, params: Params, copies: int) -> Params:
    """Return `copies` independent standard normal draws for every parameter [copies, ...], one counter running through all of them."""
    sizes = [param.numel() for param in params.values()]
    dtype = next(iter(params.values())).dtype
    flat = normal(key, copies * sum(sizes), dtype).reshape(copies, -1)
    parts = torch.split(flat, sizes, dim=1)
    return {name: part.reshape(copies, *param.shape) for (name, param), part in zip(params.items(), parts, strict=True)}
