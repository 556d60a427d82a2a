"""The statistics of `unitless` on a CPU, for large tensors: one pass over blocks that stay in its cache.

`mean_statistics` goes about forty times through memory, which takes longer than a training step of a few million weights. Here a tensor is
cut into blocks, all that the statistics need is summed up over each block, and the sums are added in float64. Whoever has to make the
momentum or the update first makes those of one block at a time too.

Very small or large gradients, and their momentum, are multiplied by a power of two before anything is squared, so that squares neither
overflow nor vanish. Where that is not needed it would change no bit, so none depends on the unit of the loss. The mean log of the update
is taken of products of four entries, which is the same sum with a quarter of the logarithms; where an entry is beyond 1e9 it may be
infinite.

Legend: n tensors, B entries of a block, S = 13 statistics.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metaopt.learners.policies.unitless import UPDATE_FLOOR, TensorSums, formulas

__all__ = ["BLOCK", "Block", "Summed", "blocks", "largest", "mean_block_statistics", "sum_blocks", "summed_statistics"]

BLOCK = 1 << 17  # entries: smaller ones cost more in calls than a faster cache gives back

_FAR = 2.0**30  # largest entries of gradients outside of this and its inverse are scaled


class Block(NamedTuple):
    """Some entries of a tensor [B], float32 or float64.

    Attributes:
        grad, momentum, denominator, update, param: as for `tensor_statistics`; without a denominator nothing is ruled by epsilon.
        eps, rate: numbers, the same for all blocks of a tensor.
    """

    grad: Tensor
    momentum: Tensor
    denominator: Tensor | None
    eps: float
    update: Tensor
    param: Tensor
    rate: float


def blocks(size: int) -> Iterator[slice]:
    """Return slices of at most `BLOCK` entries that cover `size` of them."""
    return (slice(begin, min(begin + BLOCK, size)) for begin in range(0, size, BLOCK))


def largest(x: Tensor) -> float:
    """Return the largest size of an entry, NaN if there is one."""
    low, high = (float(end) for end in torch.aminmax(x))
    return max(-low, high)


class Summed(NamedTuple):
    """What blocks of a tensor add up to: ten sums [10] float64, entries, and rate."""

    sums: Tensor
    size: int
    rate: float


def sum_blocks(largest_grad: float, size: int, make: Callable[[slice], Block]) -> Summed:
    """Return the sums over a tensor on the CPU.

    Args:
        largest_grad: largest size of an entry of the gradient.
        size: entries of the tensor.
        make: returns the block of a slice of the flattened tensor.
    """
    far = 0.0 < largest_grad < 1 / _FAR or _FAR < largest_grad < math.inf
    scale = math.ldexp(1.0, -math.frexp(largest_grad)[1]) if far else 1.0
    rows, rate = [], 0.0
    for part in blocks(size):
        block = make(part)
        rows.append(_block_sums(scale, block))
        rate = block.rate
    return Summed(torch.stack(rows).to(torch.float64).sum(0), size, rate)


def summed_statistics(tensors: Sequence[Summed], clip: float = 1.0) -> Tensor:
    """Return the statistics of tensors, each as `tensor_statistics` has them, [n, S] float64; `clip` is for all."""
    gg, mm, uu, pp, gm, gp, gu, noise, above, log = torch.stack([one.sums for one in tensors]).unbind(1)
    size, rate = torch.tensor([(one.size, one.rate) for one in tensors], dtype=torch.float64).unbind(1)
    parts = TensorSums(
        gg.sqrt(),
        mm.sqrt(),
        noise.sqrt(),
        uu.sqrt(),
        pp.sqrt(),
        _cosine(gm, gg, mm),
        _cosine(gp, gg, pp),
        _cosine(gu, gg, uu),
        above / size,
        log / size,
        size.sqrt(),
    )
    return formulas(parts, rate, torch.tensor(clip, dtype=torch.float64))


def mean_block_statistics(
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    denominators: Sequence[Tensor],
    eps: Tensor,
    updates: Sequence[Tensor],
    params: Sequence[Tensor],
    rates: Tensor,
    clip: Tensor | float = 1.0,
) -> Tensor:
    """Return what `mean_statistics` does, of tensors on the CPU; `eps` and `rates` are [n], `clip` a number or 0-d."""
    rows = []
    for *tensors, e, rate in zip(grads, momenta, denominators, updates, params, eps.tolist(), rates.tolist(), strict=True):
        flat = [x.reshape(-1) for x in tensors]

        def make(part: slice, flat: list[Tensor] = flat, e: float = e, rate: float = rate) -> Block:
            grad, momentum, denominator, update, param = (x[part] for x in flat)
            return Block(grad, momentum, denominator, e, update, param, rate)

        rows.append(sum_blocks(largest(flat[0]), flat[0].numel(), make))
    return summed_statistics(rows, float(clip)).mean(0)


def _block_sums(scale: float, block: Block) -> Tensor:
    """Return ten sums over a block, in the dtype of the gradient."""
    update, param = block.update, block.param
    grad, momentum = (x if scale == 1.0 else x * scale for x in (block.grad, block.momentum))
    noise = momentum - grad
    squares = [torch.dot(x, x) for x in (grad, momentum, update, param)]
    products = [torch.dot(grad, x) for x in (momentum, param, update)]
    rest = [torch.dot(noise, noise), _count_above(block.denominator, block.eps, grad), _sum_log(update)]
    return torch.stack([*squares, *products, *rest])


def _count_above(denominator: Tensor | None, eps: float, like: Tensor) -> Tensor:
    if denominator is None:
        return like.new_tensor(float(like.numel()))
    return torch.gt(denominator, eps, out=torch.empty_like(denominator)).sum()  # of numbers: a sum of bools is four times as slow


def _sum_log(update: Tensor) -> Tensor:
    size = update.abs().clamp_(min=UPDATE_FLOOR)
    whole = size.numel() // 4 * 4
    one, two, three, four = size[:whole].view(4, -1).unbind()
    total: Tensor = (one * two).mul_(three).mul_(four).log_().sum()
    return total + size[whole:].log().sum()


def _cosine(dot: Tensor, one: Tensor, other: Tensor) -> Tensor:
    norms = (one * other).sqrt()
    return torch.where(norms == 0, 0.0, dot / norms)
