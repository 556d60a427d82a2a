"""The statistics of `unitless` on a CPU, for large tensors: one pass over blocks that stay in its cache.

`mean_statistics` goes about forty times through memory, which takes longer than a training step of a few million weights. Here a tensor is
cut into blocks, all that the statistics need is summed up over each block, and the sums are added in float64. Whoever has to make the
momentum or the update first makes those of one block at a time too.

Gradient and momentum are multiplied by a power of two before anything is squared, so that squares neither overflow nor vanish: still no bit
of the result depends on the unit of the loss. The mean log of the update is taken of products of four entries, which is the same sum with a
quarter of the logarithms; where an entry is beyond 1e9 it may be infinite.

Legend: n tensors, B entries of a block, S = 13 statistics.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metaopt.learners.policies.unitless import UPDATE_FLOOR, TensorSums, formulas

__all__ = ["BLOCK", "Block", "block_statistics", "blocks", "largest", "mean_block_statistics"]

BLOCK = 1 << 17  # entries: smaller ones cost more in calls than a faster cache gives back


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


def block_statistics(largest_grad: float, size: int, make: Callable[[slice], Block], clip: float = 1.0) -> Tensor:
    """Return the statistics of one tensor on the CPU, as `tensor_statistics` does.

    Args:
        largest_grad: largest size of an entry of the gradient.
        size: entries of the tensor.
        make: returns the block of a slice of the flattened tensor.
        clip: factor that clipping put on the gradient.

    Returns:
        [S] float64.
    """
    scale = math.ldexp(1.0, -math.frexp(largest_grad)[1]) if 0.0 < largest_grad < math.inf else 1.0
    rows, rate = [], 0.0
    for part in blocks(size):
        block = make(part)
        rows.append(_block_sums(scale, block))
        rate = block.rate
    gg, mm, uu, pp, gm, gp, gu, noise, above, log = torch.stack(rows).to(torch.float64).sum(0).unbind()
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
        torch.tensor(math.sqrt(size), dtype=torch.float64),
    )
    return formulas(parts, *(torch.tensor(value, dtype=torch.float64) for value in (rate, clip)))


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

        rows.append(block_statistics(largest(flat[0]), flat[0].numel(), make, float(clip)))
    return torch.stack(rows).mean(0)


def _block_sums(scale: float, block: Block) -> Tensor:
    """Return ten sums over a block, in the dtype of the gradient."""
    grad, momentum, update, param = block.grad * scale, block.momentum * scale, block.update, block.param
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
