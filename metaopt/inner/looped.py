"""One particle after another, for learners whose `advance` vmap cannot trace (torch's own optimizers keep objects, not tensors).

Such a learner has an attribute `vectorised = False`. It runs through the same runner, slowly; its carries need not be tensors, so a stack
of them is a list.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from metaopt.learners.learner import Learner

__all__ = ["Rows", "is_vectorised", "over_particles"]


class Rows(list[Any]):
    """Carries of particles, one an entry."""


def is_vectorised(learner: Learner) -> bool:
    """Return whether `learner` runs under `torch.func.vmap`; it does unless it says otherwise."""
    return bool(getattr(learner, "vectorised", True))


def over_particles(learner: Learner, one: Callable[..., Any], in_dims: Sequence[int | None]) -> Callable[..., Any]:
    """Return `one` over a stack of particles: by vmap, or for a learner that is not vectorised, in a loop.

    Args:
        learner: decides which.
        one: of one particle; returns a carry, or a tuple of carries and tensors.
        in_dims: 0 for arguments that have a row for each particle, None for the others, as in vmap.
    """
    if is_vectorised(learner):
        return vmap(one, in_dims=tuple(in_dims))

    def every(*arguments: Any) -> Any:
        count = next(_count(value) for value, dim in zip(arguments, in_dims, strict=True) if dim is not None)
        rows = [
            one(*(value if dim is None else _row(value, i) for value, dim in zip(arguments, in_dims, strict=True))) for i in range(count)
        ]
        return tuple(_stacked(column) for column in zip(*rows, strict=True)) if isinstance(rows[0], tuple) else _stacked(rows)

    return every


def _count(value: Any) -> int:
    return len(value) if isinstance(value, Rows | Tensor) else len(next(iter(value.values())))


def _row(value: Any, i: int) -> Any:
    return value[i] if isinstance(value, Rows) else tree_map(lambda leaf: leaf[i], value)


def _stacked(rows: Sequence[Any]) -> Any:
    return torch.stack(list(rows)) if isinstance(rows[0], Tensor) else Rows(rows)
