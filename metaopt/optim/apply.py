"""The arithmetic of one optimizer step: `apply_rule` on stacks of same-shape tensors, written back in place.

Legend: N tensors of one chunk, G parameter groups, ... the tensors' common shape. Nothing here knows about closures or checkpoints.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.experimental import implicit_replication

from metaopt.learners.update_rules import State, Theta, UpdateRule, apply_rule, fresh_state

__all__ = ["MASTER", "Chunk", "Member", "Now", "PerTensor", "ThetaCopies", "advance_chunks", "from_master", "rounded", "working_dtype"]

MASTER = "master"  # state key of the float32 copy that 16-bit parameters get

# Weights in one stack. Learned rules hold some hundred bytes a weight while they run: on a CPU larger stacks leave the cache and took
# twice as long a weight (measured, 2^17 against 2^20); an accelerator wants many, and the memory of a step is bounded.
_CPU_CHUNK, _CHUNK = 1 << 17, 1 << 22


class Member(NamedTuple):
    """A parameter that takes this step, its dense gradient, and the group that it is in."""

    param: Tensor
    grad: Tensor
    group: Mapping[str, Any]
    number: int

    @property
    def label(self) -> str:
        """What messages call the parameter: its name if the optimizer was given any, else its place."""
        place = next(i for i, param in enumerate(self.group["params"]) if param is self.param)
        names = self.group.get("param_names")
        return repr(names[place]) if names else f"{place} of group {self.number}"


class Now(NamedTuple):
    """What is the same for all tensors of a step.

    Attributes:
        rates: step size, which holds every factor, and weight decay of each group [G, 2], float64 on the CPU.
        elapsed: steps that the optimizer has made.
        total: length of the run in steps, or None.
        loss: as the user gave it.
    """

    rates: Tensor
    elapsed: int
    total: int | None
    loss: Any


States = Mapping[Tensor, dict[str, Tensor]]  # a parameter's accumulators, `step`, and `MASTER` if it is 16-bit


class ThetaCopies:
    """Meta-parameters on each device and in each working dtype that was asked for."""

    def __init__(self, theta: Theta) -> None:
        self._theta = theta
        self._on: dict[tuple[torch.device, torch.dtype], Theta] = {}

    def __call__(self, device: torch.device, dtype: torch.dtype) -> Theta:
        """Return the meta-parameters on a device, in a dtype."""
        if (device, dtype) not in self._on:
            self._on[device, dtype] = {key: value.to(device, dtype) for key, value in self._theta.items()}
        return self._on[device, dtype]


class PerTensor:
    """Steps of an update rule: tensors of one shape, dtype, device and sign together."""

    def __init__(self, rule: UpdateRule, theta: Theta, compiled: bool) -> None:
        self._rule, self._theta = rule, ThetaCopies(theta)
        advance: Callable[[Sequence[Chunk]], None] = functools.partial(advance_chunks, rule)
        self._advance = torch.compile(advance, dynamic=False) if compiled else advance

    def fresh_state(self, param: Tensor, group: Mapping[str, Any], first: bool) -> State:
        """Return the accumulators of a parameter, given in its working dtype; `first`: no other has any yet."""
        return fresh_state(self._rule, param, _is_embedding(group))

    def batches(self, members: Sequence[Member]) -> list[list[Member]]:
        """Return those that may step together, a list for each chunk."""
        batches: dict[tuple[Any, ...], list[list[Member]]] = {}
        for member in members:
            param, group = member.param, member.group
            key = (param.shape, param.dtype, member.grad.dtype, param.device, type(param.data), group["maximize"], _is_embedding(group))
            full = max(1, (_CPU_CHUNK if param.device.type == "cpu" else _CHUNK) // param.numel())
            lists = batches.setdefault(key, [[]])
            if len(lists[-1]) == full:
                lists.append([])
            lists[-1].append(member)
        return [members for lists in batches.values() for members in lists]

    def advance(self, batches: Sequence[Sequence[Member]], states: States, now: Now) -> None:
        """Take one step in place; all but `step` of the states is overwritten."""
        self._advance([self._chunk(members, states, now.rates) for members in batches])

    def _chunk(self, members: Sequence[Member], states: States, rates: Tensor) -> "Chunk":
        params = [member.param for member in members]
        own = [states[param] for param in params]
        device, dtype = params[0].device, working_dtype(params[0])
        lr, weight_decay = rates[[member.number for member in members]].T.to(dtype).to(device).unbind(0)
        return Chunk(
            params=params,
            grads=[member.grad for member in members],
            state={key: [state[key] for state in own] for key in own[0] if key != "step"},
            t=torch.stack([state["step"] for state in own]).to(device, non_blocking=True),
            lr=lr,
            weight_decay=weight_decay,
            theta=self._theta(device, dtype),
            maximize=members[0].group["maximize"],
        )


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


def from_master(stored: Tensor, master: Tensor) -> Tensor:
    """Return where a 16-bit parameter is: its master, or the parameter itself where somebody else has written to it since."""
    return torch.where(master.to(stored.dtype) == stored, master, stored.to(master.dtype))


def rounded(stored: Tensor, end: Tensor, lr: Tensor) -> Tensor:
    """Return the 16-bit parameter after a step to the master `end`; where lr, broadcast, is 0 it stays: -0.0 stays -0.0."""
    return torch.where(lr == 0, stored, end.to(stored.dtype))


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
            start = from_master(stored, state.pop(MASTER))
        end, state = _apply(rule, chunk, start, -grad if chunk.maximize else grad, state)
        if MASTER in chunk.state:
            state[MASTER] = end
            end = rounded(stored, end, chunk.lr.reshape(-1, *[1] * (end.ndim - 1)))
        _overwrite(chunk.params, end)
        for key, values in state.items():
            _overwrite(chunk.state[key], values)


def _is_embedding(group: Mapping[str, Any]) -> bool:
    return bool(group.get("embedding", False))  # a state_dict of an earlier version has no such key


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
