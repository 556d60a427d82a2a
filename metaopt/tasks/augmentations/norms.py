"""Products and norms over all parameters of a model, with derivatives that stay finite at zero."""

import torch
from torch import Tensor

from metaopt.tasks.task import Params

__all__ = ["dot", "safe_norm"]


def dot(left: Params, right: Params) -> Tensor:
    """Return the inner product of two sets of tensors of the same names [0-d]."""
    return torch.stack([(left[name] * right[name]).sum() for name in left]).sum()


def safe_norm(grads: Params) -> tuple[Tensor, Tensor]:
    """Return the Euclidean norm over all tensors, 0 for a zero gradient, and the same with 1 in its place, to divide by.

    Where the gradient is zero the derivative is zero too, not the NaN of a square root at zero.
    """
    square = dot(grads, grads)
    nonzero = square > 0
    root = torch.sqrt(torch.where(nonzero, square, 1.0))
    return torch.where(nonzero, root, 0.0), root
