"""The arithmetic of one optimizer step: `apply_rule` on stacks of same-shape tensors, written back in place.

Legend: N tensors of one chunk, ... their common shape. Nothing here knows about groups, closures or checkpoints.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.experimental import implicit_replication

from metaopt.learners.update_rules import State, Theta, UpdateRule, apply_rule

__all__ = ["MASTER", "Chunk", "advance_chunks", "working_dtype"]

MASTER = "master"  # state key of the float32 copy that 16-bit parameters get


@dataclass
class Chunk:
    """Tensors of one shape, dtype, device and sign that take a step together; `params` and `state` are overwritten.

    Attributes:
        params, grads: N tensors each.
        state: N tensors for each key that the rule has, and `MASTER` for 16-bit parameters.
        t: [N] int64, updates that each tensor has had.
        lr, weight_decay: [N], working dtype; `lr` holds every factor of the step size.
        theta: meta-parameters in the working dtype.
        maximize: climb instead of descend.
    """

    params: list[Tensor]
    grads: list[Tensor]
    state: dict[str, list[Tensor]]
    t: Tensor
    lr: Tensor
    weight_decay: Tensor
    theta: Theta
    maximize: bool


def working_dtype(param: Tensor) -> torch.dtype:
    """Return the dtype that a rule computes and keeps its state in: float32, or float64 for float64 parameters."""
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def advance_chunks(rule: UpdateRule, chunks: Sequence[Chunk]) -> None:
    """Take one step of the rule in place for every chunk.

    A 16-bit parameter is rounded from its master, so that steps below its resolution add up. Where somebody else has written to the
    parameter since, the master follows the parameter.
    """
    for chunk in chunks:
        dtype = working_dtype(chunk.params[0])
        stored = _stack(chunk.params)
        start, grad = stored.to(dtype), _stack(chunk.grads).to(dtype)
        state = {key: _stack(values) for key, values in chunk.state.items()}
        if MASTER in state:
            master = state.pop(MASTER)
            start = torch.where(master.to(stored.dtype) == stored, master, start)
        end, state = _apply(rule, chunk, start, -grad if chunk.maximize else grad, state)
        if MASTER in chunk.state:
            state[MASTER] = end
            still = chunk.lr.reshape(-1, *[1] * (end.ndim - 1)) == 0
            end = torch.where(still, stored, end.to(stored.dtype))  # -0.0 stays -0.0
        _overwrite(chunk.params, end)
        for key, values in state.items():
            _overwrite(chunk.state[key], values)


def _stack(tensors: list[Tensor]) -> Tensor:
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


def _overwrite(targets: list[Tensor], stacked: Tensor) -> None:
    if not isinstance(stacked, DTensor):
        torch._foreach_copy_(targets, list(stacked.unbind(0)))
        return
    for target, value in zip(targets, stacked.unbind(0), strict=True):  # _foreach_copy_ has no sharding strategy
        target.copy_(value)


def _apply(rule: UpdateRule, chunk: Chunk, params: Tensor, grads: Tensor, state: State) -> tuple[Tensor, State]:
    """Return the new parameters [N, ...] and states [N, ...] of a chunk."""
    if not isinstance(params, DTensor):
        step = torch.func.vmap(functools.partial(apply_rule, rule), in_dims=(None, 0, 0, 0, 0, 0, 0))
        stepped: tuple[Tensor, State] = step(chunk.theta, params, grads, state, chunk.t, chunk.lr, chunk.weight_decay)
        return stepped
    # vmap does not see through DTensor. Reductions over a shard become all-reduces; plain tensors (theta, lr) count as replicated.
    rows = zip(params, grads, _rows(state, len(params)), chunk.t, chunk.lr, chunk.weight_decay, strict=True)
    try:
        with implicit_replication():
            singles = [apply_rule(rule, chunk.theta, *row) for row in rows]
    except RuntimeError as error:
        where = f"tensors of shape {tuple(params.shape[1:])} sharded as {params.placements}"
        raise RuntimeError(
            f"rule {rule.name} cannot run on {where}; it reads whole tensors, so shard by other axes or replicate them"
        ) from error
    return torch.stack([end for end, _ in singles]), {key: torch.stack([new[key] for _, new in singles]) for key in state}


def _rows(state: State, count: int) -> list[State]:
    return [{key: value[i] for key, value in state.items()} for i in range(count)]
