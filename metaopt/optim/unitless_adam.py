"""Adam whose step does not tell how the loss is scaled, as a drop-in `torch.optim.Optimizer`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from metaopt.errors import ConfigError, IncompatibleCheckpointError
from metaopt.learners.policies.unitless_adam import (
    Clipped,
    GroupState,
    Parts,
    clip_group,
    has_trust,
    move_tensors,
    number_dtype,
)
from metaopt.optim.apply import MASTER, working_dtype
from metaopt.optim.loading import load_exactly
from metaopt.optim.unitless_adam_groups import as_hyperparameters, check_group, find_members, read_numbers

__all__ = ["UnitlessAdam"]

# Elements in a batch: temporaries of a step are six times as large. Larger batches leave the cache of a CPU; an accelerator wants many.
_CPU_CHUNK, _CHUNK = 1 << 17, 1 << 24


class UnitlessAdam(torch.optim.Optimizer):
    """Adam with a maximum as denominator, layer-wise trust ratios and gradients clipped by their own past.

    The formulas are those of `metaopt.learners.policies.unitless_adam`, the very functions that policies are trained on. Each parameter
    group is clipped by the norm of all its gradients; everything may be changed in mid-run, betas too.

    - `lr == 0` leaves every parameter bitwise unchanged, weight decay included; means and counters advance as in any step.
    - 16-bit parameters are stepped in float32 from a copy in the state, float64 ones in float64.
    - A parameter without gradient or without elements is skipped. A sparse gradient is refused by name.
    - A non-finite gradient reaches its own tensor as it is, as in `torch.optim`, and counts as 0 in the norm of its group.
    - Sharded parameters (DTensor) take the steps of whole ones.

    Attributes:
        on_parts: if set, called in each step with the `Parts` of one batch of tensors after another, before parameters change; of a sharded
            parameter they hold the local shard. It travels neither in state dicts nor with copies.

    Args:
        params: parameters, dict groups or `named_parameters()`; a group may set all of what follows.
        lr: step size, [0, inf); of matrices relative to the norm of their weights.
        betas: decays of momentum and of the maximum in the denominator, [0, 1) each.
        eps: (0, inf); see `eps_mode`.
        weight_decay: part of the update, before the trust ratio, [0, inf).
        clip_ratio: longest gradient, as a share of the decayed maximum of its norm, (0, inf); 1 and above never clip.
        clip_decay: by how much that maximum shrinks in a step, [0, 1].
        trust_decay: one minus the decay of the mean norm of updates, (0, 1].
        eps_mode: "relative" to each tensor's mean rms gradient, or "absolute".
        maximize: climb instead of descend.

    Raises:
        ConfigError: an argument out of range.

    Source: see `metaopt.learners.policies.unitless_adam`; the defaults are where the published policies start.
    """

    on_parts: Callable[[Parts], None] | None = None

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        clip_ratio: float = 0.8,
        clip_decay: float = 1e-2,
        trust_decay: float = 0.05,
        eps_mode: str = "relative",
        *,
        maximize: bool = False,
    ) -> None:
        numbers = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        decays = {"clip_ratio": clip_ratio, "clip_decay": clip_decay, "trust_decay": trust_decay}
        super().__init__(params, {**numbers, **decays, "eps_mode": eps_mode, "maximize": maximize})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
        """Take one step on the present gradients and return the closure's loss, else `loss`.

        Args:
            closure: computes the loss and the gradients again; called once, with gradients enabled.
            loss: returned as it is.

        Raises:
            RuntimeError: a sparse gradient; nothing has been changed.
        """
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        members = [find_members(group, number) for number, group in enumerate(self.param_groups)]
        for group, params in zip(self.param_groups, members, strict=True):
            if params:
                self._step_group(group, params)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, also after steps; it is clipped by its own norm, and starts as a fresh optimizer would.

        Raises:
            ConfigError: a hyperparameter out of range, or a parameter that cannot be stepped; nothing has been added.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_group(group)
        except ConfigError:
            self.param_groups.pop()
            raise
        device = group["params"][0].device if group["params"] else torch.device("cpu")
        group.setdefault("norm_max", torch.zeros((), dtype=number_dtype(device), device=device))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; every state tensor keeps the dtype that it was saved with.

        Raises:
            IncompatibleCheckpointError: saved by another optimizer; nothing has been changed.
        """

        def check(incoming: dict[str, Any]) -> None:
            if any("norm_max" not in saved for saved in incoming["param_groups"]):
                raise IncompatibleCheckpointError("state_dict has a group without norm_max: it is not of UnitlessAdam; load its own")

        load_exactly(self, lambda: super(UnitlessAdam, self).load_state_dict(state_dict), check)

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        states = [self.state[param] or self._begin(param) for param in params]
        device, numbers = params[0].device, read_numbers(group)
        h = as_hyperparameters(numbers, device)
        before = GroupState(
            group["norm_max"].to(device),
            torch.stack([state["filled"].to(device) for state in states]),
            torch.stack([state["rms"].to(device) for state in states]),
            h.lr,  # unused: the means of norms of updates belong to the batches
        )
        norms = _norms([_local(param.grad) for param in params if param.grad is not None], params, before.rms.dtype)
        after, clipped = clip_group(norms, [param.numel() for param in params], before, h, group["eps_mode"])
        group["norm_max"] = after.norm_max
        for batch in _batches(params):
            own = clipped._replace(eps=clipped.eps[batch], weights=clipped.weights[batch])
            self._step_batch(numbers, group["maximize"], params[batch], states[batch], own)
        for param, state, filled, rms in zip(params, states, after.filled.unbind(), after.rms.unbind(), strict=True):
            state["filled"], state["rms"] = filled.to(param.device), rms.to(param.device)
        torch._foreach_add_([state["step"] for state in states], 1)

    def _step_batch(self, numbers: Tensor, maximize: bool, params: list[Tensor], states: list[dict[str, Tensor]], clipped: Clipped) -> None:
        """Step parameters of one group, dtype and device."""
        device, dtype = params[0].device, working_dtype(params[0])
        grads = [_local(param.grad).to(dtype) for param in params if param.grad is not None]
        h = as_hyperparameters(numbers, device)
        momentum, largest = ([_local(state[key]) for state in states] for key in ("momentum", "largest"))
        stored = [_local(param) for param in params]
        starts = stored
        if MASTER in states[0]:  # follows where somebody else has written to the parameter
            masters = [_local(state[MASTER]) for state in states]
            starts = [torch.where(m.to(p.dtype) == p, m, p.to(m.dtype)) for m, p in zip(masters, stored, strict=True)]
        trusted = [i for i, param in enumerate(params) if has_trust(param)]
        means = [states[i]["update_norm"] for i in trusted]
        ends, update_norm, parts = move_tensors(
            starts,
            list(torch._foreach_neg(grads)) if maximize else grads,
            momentum,
            largest,
            torch.stack(means) if means else torch.empty(0, device=device),
            Clipped(*(value.to(device) for value in clipped)),
            h,
            lambda tensors, as_dtype: _norms(tensors, [params[i] for i in trusted], as_dtype),
        )
        if self.on_parts is not None:
            self.on_parts(parts)
        torch._foreach_copy_(momentum, parts.momenta)
        torch._foreach_copy_(largest, parts.denominators)
        for i, norm in zip(trusted, update_norm.unbind(), strict=True):
            states[i]["update_norm"] = norm
        if float(numbers[0]) != 0:
            if MASTER in states[0]:
                torch._foreach_copy_(masters, ends)
            torch._foreach_copy_(stored, ends)

    def _begin(self, param: Tensor) -> dict[str, Tensor]:
        """Give a parameter its state before its first step; `step` is a CPU tensor, as in `torch.optim`."""
        working = param.detach().to(working_dtype(param))
        zero = torch.zeros((), dtype=number_dtype(param.device), device=param.device)
        state = {
            "step": torch.tensor(0),
            "momentum": torch.zeros_like(working, memory_format=torch.preserve_format),
            "largest": torch.zeros_like(working, memory_format=torch.preserve_format),
            "filled": zero.expand(3).clone(),
            "rms": zero,
        }
        if has_trust(param):
            state["update_norm"] = zero
        if working.dtype != param.dtype:
            state[MASTER] = working
        self.state[param] = state
        return state


def _batches(params: Sequence[Tensor]) -> list[slice]:
    """Return slices of parameters of one device and dtype, of bounded size unless one parameter is larger."""
    slices: list[slice] = []
    start = size = 0
    for place, param in enumerate(params):
        limit = _CPU_CHUNK if param.device.type == "cpu" else _CHUNK
        other = (param.device, param.dtype) != (params[start].device, params[start].dtype)
        if place > start and (other or size + param.numel() > limit):
            slices.append(slice(start, place))
            start, size = place, 0
        size += param.numel()
    return [*slices, slice(start, len(params))]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor.data, DTensor) else tensor.detach()  # type: ignore[attr-defined]


def _norms(tensors: Sequence[Tensor], params: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the norms of local tensors, each a shard like that of its parameter if it is sharded, on the first one's device."""
    norms = []
    if any(isinstance(param.data, DTensor) for param in params):
        for tensor, param in zip(tensors, params, strict=True):
            if isinstance(param.data, DTensor):
                shards = param.data.placements
                tensor = DTensor.from_local(
                    tensor, param.data.device_mesh, shards, run_check=False, shape=param.shape, stride=param.stride()
                )
            norm = torch.linalg.vector_norm(tensor, dtype=dtype)
            norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    else:
        norms = list(torch._foreach_norm(list(tensors), 2, dtype=dtype))
    return torch.stack([norm.to(tensors[0].device) for norm in norms])
