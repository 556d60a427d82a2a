"""Find out whether a call reads or changes the global random generators of torch, numpy or Python."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["global_randomness", "same_leaves"]


class _Generator(NamedTuple):
    state: Callable[[], Any]
    restore: Callable[[Any], Any]
    seed: Callable[[int], Any]


_GENERATORS = {
    "torch": _Generator(torch.get_rng_state, torch.set_rng_state, torch.manual_seed),
    "numpy": _Generator(np.random.get_state, np.random.set_state, np.random.seed),
    "random": _Generator(random.getstate, random.setstate, random.seed),
}


def same_leaves(one: Any, two: Any) -> bool:
    """Return whether two nests of tensors and plain values are equal; a NaN equals a NaN."""
    leaves = tree_leaves(one), tree_leaves(two)
    return len(leaves[0]) == len(leaves[1]) and all(map(_same, *leaves))


def global_randomness(call: Callable[[], Any]) -> tuple[str, ...]:
    """Return what `call` does to the global generators, in words: "reads torch", "changes numpy", ...; empty if it leaves them alone.

    It reads one if its result follows that generator's seed. It is called five times, each time on seeded generators, which are afterwards
    as they were. A result that varies by itself is not taken for a reader.
    """
    found = []
    with _kept():
        first, changed = _seeded(call, {})
        again, _ = _seeded(call, {})
        if same_leaves(first, again):
            found += [f"reads {name}" for name in _GENERATORS if not same_leaves(first, _seeded(call, {name: 1})[0])]
        found += [f"changes {name}" for name in changed]
    return tuple(found)


def _seeded(call: Callable[[], Any], seeds: dict[str, int]) -> tuple[Any, list[str]]:
    """Return the result of a call on seeded generators, and the names of those that it moved."""
    for name, generator in _GENERATORS.items():
        generator.seed(seeds.get(name, 0))
    before = {name: generator.state() for name, generator in _GENERATORS.items()}
    result = call()
    return result, [name for name, generator in _GENERATORS.items() if not same_leaves(before[name], generator.state())]


@contextmanager
def _kept() -> Iterator[None]:
    before = {name: generator.state() for name, generator in _GENERATORS.items()}
    try:
        yield
    finally:
        for name, generator in _GENERATORS.items():
            generator.restore(before[name])


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        if one.shape != two.shape or one.dtype != two.dtype:
            return False
        return bool(((one == two) | ((one != one) & (two != two))).all())
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return np.array_equal(one, two)
    return bool(one == two)
