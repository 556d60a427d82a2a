"""Sample parameters and gradients for the optimizer contract, and comparisons that say what differs.

All numbers come from local generators, so that every optimizer meets the same gradients.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metaopt.testing.contract import require

__all__ = ["Make", "all_params", "gap", "moved", "same", "sample_params", "take_steps", "unmoved", "values"]

Make = Callable[[Any], torch.optim.Optimizer]

# Ranks 0 to 4, a pair of equal shapes, and a square: what batching by shape and factored axes get wrong.
_SHAPES = ((), (1,), (5,), (3, 4), (3, 4), (4, 4), (2, 3, 4), (2, 3, 2, 2))


def sample_params(dtype: torch.dtype = torch.float32, shapes: tuple[tuple[int, ...], ...] = _SHAPES) -> list[nn.Parameter]:
    """Return parameters with values that do not depend on the dtype, except by rounding."""
    source = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=source).to(dtype)) for shape in shapes]


def take_steps(optimizer: torch.optim.Optimizer, first: int, count: int, sign: float = 1.0) -> None:
    """Take steps number first, first + 1, ... with the gradients that belong to (step, place of the parameter)."""
    for step in range(first, first + count):
        for place, param in enumerate(all_params(optimizer)):
            noise = torch.randn(param.shape, generator=torch.Generator().manual_seed(1000 * step + place))
            param.grad = (sign * (noise + 0.5)).to(param.dtype)
        optimizer.step()


def all_params(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Yield the parameters of an optimizer in the order of its groups."""
    return (param for group in optimizer.param_groups for param in group["params"])


def values(params: Collection[Tensor]) -> list[Tensor]:
    """Return copies of the tensors."""
    return [param.detach().clone() for param in params]


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def same(left: Collection[Tensor], right: Collection[Tensor], what: str) -> None:
    """Require that tensors are equal bit for bit."""
    for place, (a, b) in enumerate(zip(left, right, strict=True)):
        require(torch.equal(_bits(a), _bits(b)), f"{what}: tensor {place} of shape {tuple(a.shape)} differs by {gap(a, b):g}")


def gap(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference of two tensors."""
    return float((a.detach().double() - b.detach().double()).abs().max()) if a.numel() else 0.0


@contextmanager
def unmoved(params: Collection[Tensor], what: str) -> Iterator[None]:
    """Require that the tensors have the same bits after the block as before."""
    before = values(params)
    yield
    same(before, params, what)


def moved(before: Collection[Tensor], params: Collection[Tensor], what: str) -> None:
    """Require that every tensor has changed."""
    for place, (a, b) in enumerate(zip(before, params, strict=True)):
        require(not torch.equal(a, b), f"{what}: tensor {place} of shape {tuple(b.shape)} did not move")
