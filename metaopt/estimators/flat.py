"""Meta-parameters as one vector and back. Legend: P meta-parameters."""

import torch
from torch import Tensor

from metaopt.learners.update_rules import Theta

__all__ = ["flatten", "unflatten"]


def flatten(theta: Theta) -> Tensor:
    """Return all entries of theta, in its own order, as one vector [P]."""
    return torch.cat([value.reshape(-1) for value in theta.values()])


def unflatten(vector: Tensor, like: Theta) -> Theta:
    """Return `vector` [..., P] as a dict shaped like `like`, leading axes kept."""
    sizes = [value.numel() for value in like.values()]
    pieces = torch.split(vector, sizes, dim=-1)
    return {k: piece.reshape((*vector.shape[:-1], *v.shape)) for (k, v), piece in zip(like.items(), pieces, strict=True)}
