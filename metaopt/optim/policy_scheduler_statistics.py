"""The thirteen statistics of a step of any optimizer, from its gradients, its state and its weights before and after.

| optimizer                | momentum                        | denominator                | update                                   |
| ------------------------ | ------------------------------- | -------------------------- | ---------------------------------------- |
| Adam, AdamW              | corrected first moment          | root of the second moment  | as subtracted, decoupled decay included  |
| NAdam, RAdam             | corrected first moment          | root of the second moment  | move of the weights over the rate        |
| Adamax                   | corrected first moment          | infinity norm              | as subtracted                            |
| RMSprop                  | the gradient                    | root of the second moment  | as subtracted                            |
| Adagrad                  | the gradient                    | root of the sum of squares | move of the weights over the rate        |
| SGD                      | the buffer over its weights' sum | none                      | the direction over rms(gradient)         |
| UnitlessAdam             | its own parts                   | its own                    | its own                                  |
| any other                | the gradient                    | none                       | move of the weights over its own rms     |

An optimizer without a first moment looks like one whose 1 - beta1 is 1, which training meets: momentum is the gradient. Without a second
moment nothing is ruled by epsilon: `sqrt_v_hat_gt_epsilon` is 1. What would carry the unit of the loss (the direction of SGD, the move
under an unknown rule) is divided by a root mean square, and the rate multiplied by it: the relative change of a tensor stays what it is,
and no statistic tells the scale. Decay that is added to the gradient belongs to the gradient, and `maximize` turns its sign: then it is
what the moments are made of.

Gradients are read after the step, because a closure makes them within it, and fused optimizers have then undone the loss scale. Only SGD
with Nesterov momentum may overwrite them: there they are copied before. Clipping that happened outside of the optimizer is not seen:
`did_grad_clip` is 0. Sparse gradients and complex parameters are left out.

Legend: S = 13 statistics.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from metaopt.errors import ConfigError
from metaopt.learners.policies.unitless import mean_statistics
from metaopt.learners.policies.unitless_adam import Parts
from metaopt.learners.policies.unitless_blocks import Block, Summed, largest, mean_block_statistics, sum_blocks, summed_statistics
from metaopt.optim.unitless_adam import UnitlessAdam

__all__ = ["Before", "before_step", "check_step", "step_statistics"]

_BATCH = 1 << 22  # elements whose statistics an accelerator computes together: bounds the memory that this takes


class Before(NamedTuple):
    """What is kept from before a step.

    Attributes:
        params: copies by `id` of the parameter.
        grads: likewise, only where the step may overwrite them.
        own: (tensors, their mean statistics) of an optimizer that tells its parts within the step.
    """

    params: dict[int, Tensor]
    grads: dict[int, Tensor]
    own: list[tuple[int, Tensor]]


class _Member(NamedTuple):
    """A tensor that has been stepped, or a block of one."""

    param: Tensor  # before the step
    after: Tensor
    grad: Tensor  # what the moments are made of
    state: Mapping[str, Any]
    rms: Tensor | float  # of what an update with the unit of the loss is divided by

    def flat(self) -> "_Member":
        """Return the tensor as a vector, and what its state has for each entry too."""
        shape = self.param.shape
        state = {
            key: value.reshape(-1) if isinstance(value, Tensor) and value.shape == shape and shape else value
            for key, value in self.state.items()
        }
        return _Member(self.param.reshape(-1), self.after.reshape(-1), self.grad.reshape(-1), state, self.rms)

    def block(self, part: slice) -> "_Member":
        """Return some entries of a flat one."""
        state = {key: value[part] if isinstance(value, Tensor) and value.dim() else value for key, value in self.state.items()}
        return _Member(self.param[part], self.after[part], self.grad[part], state, self.rms)


class _Parts(NamedTuple):
    momentum: Tensor
    denominator: Tensor | None  # None: nothing that epsilon could rule
    update: Tensor
    rate: Tensor | float


_Formula = Callable[[_Member, Mapping[str, Any], int], _Parts]


def check_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise if the gradients of a step cannot be had: its closure makes them, and Nesterov momentum overwrites them.

    Args:
        optimizer: about to step.
        args: of its `step`, the optimizer first.
        kwargs: likewise.

    Raises:
        ConfigError: such a step.
    """
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if callable(closure) and isinstance(optimizer, torch.optim.SGD) and any(group["nesterov"] for group in optimizer.param_groups):
        raise ConfigError("SGD with nesterov=True overwrites the gradients that its closure makes; call step() without a closure")


def before_step(optimizer: Optimizer) -> Before:
    """Return what `step_statistics` needs from before the step."""
    before = Before({}, {}, [])
    if isinstance(optimizer, UnitlessAdam):
        optimizer.on_parts = lambda parts: before.own.append((len(parts.grads), _of_parts(parts)))
        return before
    nesterov = isinstance(optimizer, torch.optim.SGD)
    for group in optimizer.param_groups:
        for param in group["params"]:
            before.params[id(param)] = param.detach().clone()
            if nesterov and group["nesterov"] and param.grad is not None:
                before.grads[id(param)] = param.grad.detach().clone()
    return before


def step_statistics(optimizer: Optimizer, before: Before, steps: int) -> Tensor | None:
    """Return the mean of the statistics over all tensors [S], None where no tensor has a gradient; nothing waits for a device.

    Args:
        optimizer: that has just taken a step.
        before: of `before_step`.
        steps: steps that it has taken, this one included, for optimizers that do not count.
    """
    if isinstance(optimizer, UnitlessAdam):
        optimizer.on_parts = None
        found = before.own
    else:
        formula = next((_FORMULAS[base] for base in type(optimizer).__mro__ if base in _FORMULAS), _other)
        found = [(len(members), _of_batch(formula, group, members, steps)) for group, members in _batches(optimizer, before, formula)]
    if not found:
        return None
    like = found[0][1]
    return torch.stack([row.to(like) * count for count, row in found]).sum(0) / sum(count for count, _ in found)


def _of_parts(parts: Parts) -> Tensor:
    statistics = mean_block_statistics if _on_host(parts.grads[0]) else mean_statistics
    return statistics(*parts)


def _of_batch(formula: "_Formula", group: Mapping[str, Any], members: list[_Member], steps: int) -> Tensor:
    """Return the mean over the tensors of a batch [S]."""
    if _on_host(members[0].grad):
        return summed_statistics([_sum_blocks(formula, group, member, steps) for member in members]).mean(0)
    parts = [formula(member, group, steps) for member in members]
    ruled = parts[0].denominator is not None
    return mean_statistics(
        [member.grad for member in members],
        [part.momentum for part in parts],
        [part.update.new_ones(()).expand_as(part.update) if part.denominator is None else part.denominator for part in parts],
        float(group["eps"]) if ruled else 0.5,
        [part.update for part in parts],
        [member.param for member in members],
        _rates(parts),
    )


def _rates(parts: list[_Parts]) -> Tensor | float:
    """Return the rates of tensors of one group [n], or the number that they share, which costs no copy to the device."""
    rates = [part.rate for part in parts if isinstance(part.rate, Tensor)]
    return torch.stack([rate.to(parts[0].update) for rate in rates]) if rates else float(parts[0].rate)


def _on_host(x: Tensor) -> bool:
    return x.device.type == "cpu"


def _sum_blocks(formula: "_Formula", group: Mapping[str, Any], member: _Member, steps: int) -> Summed:
    """Return what the statistics of a tensor on the CPU need; its momentum, denominator and update are made block by block."""
    flat = member.flat()

    def make(part: slice) -> Block:
        block = flat.block(part)
        momentum, denominator, update, rate = formula(block, group, steps)
        eps = 0.0 if denominator is None else float(group["eps"])
        return Block(block.grad, momentum, denominator, eps, update, block.param, float(rate))

    return sum_blocks(largest(flat.grad), flat.grad.numel(), make)


def _batches(optimizer: Optimizer, before: Before, formula: "_Formula") -> Iterator[tuple[Mapping[str, Any], list[_Member]]]:
    """Yield tensors of one group, device and dtype, not too many elements at a time."""
    for group in optimizer.param_groups:
        waiting: dict[tuple[torch.device, torch.dtype], list[_Member]] = {}
        for param in group["params"]:
            member = _member(param, group, before, optimizer.state.get(param, {}), formula)
            if member is None:
                continue
            members = waiting.setdefault((param.device, member.grad.dtype), [])
            if members and sum(one.grad.numel() for one in members) + param.numel() > _BATCH:
                yield group, members[:]
                members.clear()
            members.append(member)
        for members in waiting.values():
            yield group, members


def _member(param: Tensor, group: Mapping[str, Any], before: Before, state: Mapping[str, Any], formula: "_Formula") -> _Member | None:
    grad, start = param.grad, before.params.get(id(param))
    if grad is None or start is None or grad.layout != torch.strided or not param.numel() or param.is_complex():
        return None
    wide = torch.float64 if param.dtype == torch.float64 else torch.float32
    start, grad = start.to(wide), before.grads.get(id(param), grad.detach()).to(wide)
    if group.get("maximize"):
        grad = -grad
    decay = float(group.get("weight_decay", 0.0))
    if decay and not group.get("decoupled_weight_decay"):
        grad = grad.add(start, alpha=decay)
    after = param.detach().to(wide)
    rms = _rms(grad) if formula is _sgd else _rms(start - after) if formula in (_radam, _other) else 1.0
    return _Member(start, after, grad, state, rms)


def _moved(member: _Member, rate: float) -> Tensor:
    """Return the move of the weights over a rate; without a rate nothing moves."""
    return (member.param - member.after) / rate if rate else torch.zeros_like(member.grad)


def _correction(beta: float, member: _Member) -> float | Tensor:
    step: Tensor = member.state["step"]
    if step.device.type == "cpu":
        return 1.0 - beta ** int(step)
    rest: Tensor = 1.0 - beta**step  # a counter on a device is not waited for
    return rest


def _adam_moments(member: _Member, group: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    beta1, beta2 = map(float, group["betas"])
    second = member.state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"].to(member.grad.dtype)
    first = member.state["exp_avg"].to(member.grad.dtype)
    return first / _correction(beta1, member), (second / _correction(beta2, member)).sqrt()


def _adam(member: _Member, group: Mapping[str, Any], _: int) -> _Parts:
    momentum, denominator = _adam_moments(member, group)
    update = momentum / (denominator + float(group["eps"]))
    if group["decoupled_weight_decay"] and group["weight_decay"]:
        update.add_(member.param, alpha=float(group["weight_decay"]))
    return _Parts(momentum, denominator, update, group["lr"])


def _nadam(member: _Member, group: Mapping[str, Any], _: int) -> _Parts:
    return _Parts(*_adam_moments(member, group), _moved(member, float(group["lr"])), group["lr"])


def _radam(member: _Member, group: Mapping[str, Any], _: int) -> _Parts:
    return _Parts(*_adam_moments(member, group), *_bare_move(member))  # its first steps are not divided by a second moment


def _adamax(member: _Member, group: Mapping[str, Any], _: int) -> _Parts:
    momentum = member.state["exp_avg"].to(member.grad.dtype) / _correction(float(group["betas"][0]), member)
    denominator = member.state["exp_inf"].to(member.grad.dtype)  # has epsilon in it
    return _Parts(momentum, denominator, momentum / denominator, group["lr"])


def _rmsprop(member: _Member, group: Mapping[str, Any], _: int) -> _Parts:
    square = member.state["square_avg"].to(member.grad.dtype)
    if group["centered"]:
        square = torch.addcmul(square, member.state["grad_avg"], member.state["grad_avg"], value=-1)
    denominator = square.sqrt()
    update = member.state["momentum_buffer"] if group["momentum"] else member.grad / (denominator + float(group["eps"]))
    return _Parts(member.grad, denominator, update, group["lr"])


def _adagrad(member: _Member, group: Mapping[str, Any], _: int) -> _Parts:
    return _Parts(member.grad, member.state["sum"].to(member.grad.dtype).sqrt(), _moved(member, float(group["lr"])), group["lr"])


def _sgd(member: _Member, group: Mapping[str, Any], steps: int) -> _Parts:
    """The buffer begins with the first gradient whole, hence the sum of its weights."""
    beta, buffer = float(group["momentum"]), member.state.get("momentum_buffer")
    momentum, update, weight = member.grad, member.grad, 1.0
    if buffer is not None:
        old = beta ** (steps - 1)
        weight = old + (1.0 - float(group["dampening"])) * ((1.0 - old) / (1.0 - beta) if beta < 1 else steps - 1)
        momentum = update = buffer.to(member.grad.dtype) / weight
        if group["nesterov"]:
            weight, update = 1.0 + beta * weight, (member.grad + beta * buffer) / (1.0 + beta * weight)
    return _Parts(momentum, None, update / member.rms, weight * member.rms * float(group["lr"]))


def _other(member: _Member, group: Mapping[str, Any], _: int) -> _Parts:
    return _Parts(member.grad, None, *_bare_move(member))


def _bare_move(member: _Member) -> tuple[Tensor, Tensor | float]:
    return (member.param - member.after) / member.rms, member.rms


def _rms(x: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(x) / math.sqrt(x.numel())
    return torch.where(size == 0, 1.0, size)


_FORMULAS: dict[type, _Formula] = {
    torch.optim.Adam: _adam,
    torch.optim.NAdam: _nadam,
    torch.optim.RAdam: _radam,
    torch.optim.Adamax: _adamax,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
    torch.optim.SGD: _sgd,
}
