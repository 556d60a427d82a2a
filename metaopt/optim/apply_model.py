"""The arithmetic of one optimizer step of a rule that sees all tensors: `apply_model_rule` on the whole model, written back in place.

How state lies: a tensor's accumulators are in the optimizer's state of that parameter, as in `torch.optim`. What belongs to the whole model
is beside those of the first parameter that ever had a gradient, under keys that begin with `SHARED` (torch's L-BFGS keeps its history in
the same way), so that everything which saves, moves or loads an optimizer's state takes it along.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from metaopt.errors import ConfigError
from metaopt.learners.update_rules import ModelRule, ModelState, State, Theta, apply_model_rule
from metaopt.optim.apply import MASTER, Member, Now, States, ThetaCopies, from_master, rounded, working_dtype

__all__ = ["SHARED", "WholeModel"]

SHARED = "shared."  # begins the state keys of what belongs to the whole model

Params = dict[str, Tensor]


class WholeModel:
    """Steps of a model rule: all tensors together, as one function of dicts in the working dtype.

    The rule's t counts the optimizer's steps, so that a parameter which joins late meets a run that is under way.
    """

    def __init__(self, rule: ModelRule, theta: Theta, compiled: bool) -> None:
        self._rule, self._theta = rule, ThetaCopies(theta)
        step: Callable[..., tuple[Params, Params, ModelState]] = functools.partial(_step, rule)
        self._step = torch.compile(step, dynamic=False) if compiled else step

    def fresh_state(self, param: Tensor, group: Mapping[str, Any], first: bool) -> State:
        """Return the accumulators of a parameter, given in its working dtype; the `first` one gets what is shared as well."""
        fresh = self._rule.init_state(self._theta(param.device, param.dtype), {"": param})
        state = {**fresh["tensors"][""], **({SHARED + key: value for key, value in fresh["shared"].items()} if first else {})}
        # Copied, because it is overwritten: a learned initial state may be an entry of theta, or a view of one.
        return {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}

    def batches(self, members: Sequence[Member]) -> list[list[Member]]:
        """Return all members in one list.

        Raises:
            ConfigError: a parameter is sharded, or they are on several devices or of several precisions.
        """
        for member in members:
            if isinstance(member.param.data, DTensor):
                what = f"parameter {member.label} is sharded (DTensor), and rule {self._rule.name} sees whole tensors"
                raise ConfigError(f"{what}; use DistributedDataParallel")
        kinds = sorted({f"{working_dtype(member.param)} on {member.param.device}" for member in members})
        if len(kinds) > 1:
            raise ConfigError(
                f"rule {self._rule.name} sees all parameters together, got {' and '.join(kinds)}; give it those of one precision and device"
            )
        return [list(members)] if members else []

    def advance(self, batches: Sequence[Sequence[Member]], states: States, now: Now) -> None:
        """Take one step in place; all but `step` of the states is overwritten.

        Raises:
            ConfigError: the rule reads the loss, and it is not one number; nothing has been changed.
        """
        for members in batches:
            self._advance({str(place): member for place, member in enumerate(members)}, states, now)

    def _advance(self, members: Mapping[str, Member], states: States, now: Now) -> None:
        one = members["0"].param
        device, dtype = one.device, working_dtype(one)
        rates = now.rates.to(dtype).to(device, non_blocking=True)
        own = {name: states[member.param] for name, member in members.items()}
        home = next((state for state in states.values() if any(key.startswith(SHARED) for key in state)), {})
        params = {name: member.param for name, member in members.items()}
        masters = {name: state[MASTER] for name, state in own.items() if MASTER in state}
        kept = {name: {key: value for key, value in state.items() if _is_accumulator(key)} for name, state in own.items()}
        shared = {key.removeprefix(SHARED): value for key, value in home.items() if key.startswith(SHARED)}
        grads = {name: -member.grad if member.group["maximize"] else member.grad for name, member in members.items()}
        ends, new_masters, new = self._step(
            self._theta(device, dtype),
            params,
            grads,
            masters,
            {"tensors": kept, "shared": shared},
            torch.tensor(now.elapsed).to(device, non_blocking=True),
            {name: rates[member.number, 0] for name, member in members.items()},
            {name: rates[member.number, 1] for name, member in members.items()},
            _number(now.loss).to(device, dtype) if self._rule.needs_loss else None,
            torch.tensor(now.total, dtype=dtype).to(device, non_blocking=True) if self._rule.needs_horizon else None,
        )
        old = _flat(params, masters, *kept.values(), shared)
        _overwrite(old, _flat(ends, new_masters, *(new["tensors"][name] for name in kept), new["shared"]), grads.values())


def _is_accumulator(key: str) -> bool:
    return key not in ("step", MASTER) and not key.startswith(SHARED)


def _step(
    rule: ModelRule,
    theta: Theta,
    stored: Params,
    grads: Params,
    masters: Params,
    state: ModelState,
    t: Tensor,
    lr: Params,
    weight_decay: Params,
    loss: Tensor | None,
    horizon: Tensor | None,
) -> tuple[Params, Params, ModelState]:
    """Return (parameters as they are stored, masters, state) after one step; `masters` are those of 16-bit parameters."""
    dtype = next(iter(lr.values())).dtype
    start = {name: from_master(param, masters[name]) if name in masters else param for name, param in stored.items()}
    grads = {name: grad.to(dtype) for name, grad in grads.items()}
    end, state = apply_model_rule(rule, theta, start, grads, state, t, lr, weight_decay, loss, horizon)
    ends = {name: rounded(param, end[name], lr[name]) if name in masters else end[name] for name, param in stored.items()}
    return ends, {name: end[name] for name in masters}, state


def _number(loss: Any) -> Tensor:
    value = loss.detach() if isinstance(loss, Tensor) else torch.as_tensor(loss, dtype=torch.float64)
    if value.numel() != 1:
        raise ConfigError(f"loss must be one number, got shape {tuple(value.shape)}; reduce it to its mean")
    return value.reshape(())


def _flat(*dicts: Mapping[str, Tensor]) -> dict[tuple[int, str], Tensor]:
    return {(place, key): value for place, one in enumerate(dicts) for key, value in one.items()}


def _overwrite(targets: dict[tuple[int, str], Tensor], values: dict[tuple[int, str], Tensor], read: Any) -> None:
    """Write values into the targets of the same keys; a value that is a view of what was read is copied before anything is written."""
    taken = {tensor.untyped_storage().data_ptr() for tensor in (*targets.values(), *read)}
    new = [values[key].clone() if values[key].untyped_storage().data_ptr() in taken else values[key] for key in targets]
    torch._foreach_copy_(list(targets.values()), new)
