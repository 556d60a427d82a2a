"""One decision for all ranks of a data-parallel run: that of rank 0."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from metaopt.errors import ConfigError

__all__ = ["from_rank_zero", "is_rank_zero", "refuse_shards"]


def is_rank_zero() -> bool:
    """Return whether this process decides: the only one, or the first of the default group."""
    return not _several() or dist.get_rank() == 0


def from_rank_zero(numbers: Tensor, device: torch.device) -> Tensor:
    """Return the numbers [n] float64 of rank 0, on the host.

    Args:
        numbers: on the host, of one size everywhere; what other ranks give is not looked at.
        device: of the weights, which the numbers travel by where the backend knows nothing else (NCCL).
    """
    if not _several():
        return numbers
    backend = str(dist.get_backend())
    sent = numbers.clone() if "gloo" in backend or "mpi" in backend else numbers.to(device)
    dist.broadcast(sent, src=0)
    return sent.cpu()


def refuse_shards(optimizer: Optimizer) -> None:
    """Raise if a parameter is a shard, whose norms are not those of the whole.

    Raises:
        ConfigError: with the parameter's place.
    """
    for number, group in enumerate(optimizer.param_groups):
        for place, param in enumerate(group["params"]):
            if isinstance(param.data, DTensor):
                what = f"parameter {place} of group {number} is sharded (DTensor)"
                raise ConfigError(f"{what}, which PolicyScheduler does not measure; use DistributedDataParallel, or LearnedSchedule")


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
