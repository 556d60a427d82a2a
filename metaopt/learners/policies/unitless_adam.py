"""Adam whose step does not tell how the loss is scaled: the inner optimizer that hyperparameter policies control.

One step of a group of tensors, with g the gradient of one of them and a bar for running means that are free of bias:

    n = norm of all g of the group,  N = max(n, (1 - clip_decay) N),  g <- g min(1, clip_ratio N / n)
    m = mean of g over about 1 / one_minus_beta1 steps,  s = max((1 - one_minus_beta2) s, abs(g))
    u = m / (s + eps) + weight_decay p
    trust = max(norm(p) / mean of norm(u) over about 1 / trust_decay steps, 1e-3) for matrices and up, 1 for vectors and scalars
    p <- p - lr trust u

`eps` is `epsilon` itself ("absolute"), or `epsilon` times the mean of rms(g) of the tensor over about 1 / one_minus_beta2 steps
("relative"). With "relative", a gradient times 2^j changes no bit of any step; with "absolute", that takes epsilon times 2^j.

A mean is kept corrected: with c_t the sum of the weights 1 - beta of all steps so far, each times the later betas, it is

    c_t = c_{t-1} + (1 - beta) (1 - c_{t-1}),   mean_t = mean_{t-1} + (1 - beta) / c_t (x_t - mean_{t-1}).

This equals the usual moment over its correction 1 - beta^t, stays exact when beta changes in mid-run, gives the first gradient back to the
last bit, and never forms 1 - beta from beta, which would lose its digits. The maximum s needs no correction.

Degenerate input: without any gradient so far, n = 0 clips nothing, and a tensor's relative eps is infinite, so that only weight decay moves
it. A norm of exactly 0, of weights or updates, makes the trust 1. A tensor with a NaN or infinity in its gradient gets it as it is, but
counts as 0 in the norm of the group, so that others go on.

Source: Almeida et al., 2021, "A generalizable approach to learning optimizers" (2106.00958), and its published example of a configuration;
Kingma, Ba, 2015, "Adam", algorithm 2 (the maximum); You et al., 2020, "Large batch optimization for deep learning" (1904.00962), LAMB.
Ours, where there is nothing public or we differ: relative eps, its scope (a tensor) and its decay (that of s); the clip factor has no 1e-6
beside the norm; trust is 1 at norms of 0, not below 1e-8; how non-finite gradients are counted.

Everything is pure and works under `torch.func.vmap` over runs. Nothing waits for a device.

Legend: n tensors of a group, k of them with trust (rank >= 2), [] one number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "EPS_MODES",
    "MINIMUM_TRUST",
    "Clipped",
    "GroupState",
    "Hyperparameters",
    "Parts",
    "UnitlessState",
    "clip_group",
    "has_trust",
    "move_tensors",
    "number_dtype",
    "start_group",
    "tensor_norms",
    "unitless_start",
    "unitless_step",
]

EPS_MODES = ("relative", "absolute")
MINIMUM_TRUST = 1e-3  # of the published configuration

Tensors = Sequence[Tensor]
Norms = Callable[[Tensors, torch.dtype], Tensor]


class Hyperparameters(NamedTuple):
    """The eight knobs, 0-d tensors in the order of `KNOBS`: `Hyperparameters(*values.unbind(-1))`; float64 keeps their digits.

    Attributes:
        lr: step size, [0, inf).
        weight_decay: in units of the step, [0, inf).
        epsilon: (0, inf); its unit depends on the mode.
        one_minus_beta2: decay of the maximum in the denominator, (0, 1].
        one_minus_beta1: decay of momentum, (0, 1].
        clip_ratio: longest gradient, as a share of the rolling maximum of norms, (0, inf); 1 and above never clip.
        clip_decay: decay of that maximum, [0, 1].
        trust_decay: decay of the mean norm of updates in the trust ratio, (0, 1].
    """

    lr: Tensor
    weight_decay: Tensor
    epsilon: Tensor
    one_minus_beta2: Tensor
    one_minus_beta1: Tensor
    clip_ratio: Tensor
    clip_decay: Tensor
    trust_decay: Tensor


class GroupState(NamedTuple):
    """The numbers that a group keeps, all in `number_dtype`.

    Attributes:
        norm_max: decayed maximum of the norm of the group's gradient, [].
        filled: sums of weights of the means of gradients, of rms(g), and of norm(u); [3], or [n, 3] where tensors differ in age.
        rms: corrected mean of each tensor's rms(g), after clipping, [n].
        update_norm: corrected mean of norm(u) of tensors with trust, [k].
    """

    norm_max: Tensor
    filled: Tensor
    rms: Tensor
    update_norm: Tensor


class Clipped(NamedTuple):
    """What the group tells its tensors in one step: clip factor [], eps [n], weights of new values in the means [3] or [n, 3]."""

    clip: Tensor
    eps: Tensor
    weights: Tensor


class Parts(NamedTuple):
    """What a step consisted of: the arguments of `mean_statistics`, in their order.

    Attributes:
        grads: after clipping.
        momenta: corrected.
        denominators: without eps.
        eps: [n].
        updates: before the rate, decay included.
        params: before the step.
        rates: lr times trust, [n].
        clip: factor on the gradients, [].
    """

    grads: list[Tensor]
    momenta: list[Tensor]
    denominators: list[Tensor]
    eps: Tensor
    updates: list[Tensor]
    params: list[Tensor]
    rates: Tensor
    clip: Tensor

    def each(self) -> list[tuple[Tensor, ...]]:
        """Return the arguments of `tensor_statistics` for every tensor (`mean_statistics` does not work under vmap)."""
        eps, rates = self.eps.unbind(), self.rates.unbind()
        columns = (self.grads, self.momenta, self.denominators, eps, self.updates, self.params, rates)
        return [(*row, self.clip) for row in zip(*columns, strict=True)]


class UnitlessState(NamedTuple):
    """State of one run, plain tensors.

    Attributes:
        momentum: corrected mean of the gradient by name.
        largest: decayed maximum of abs(g) by name.
        group: numbers; its tensors are in the order of their sorted names.
    """

    momentum: dict[str, Tensor]
    largest: dict[str, Tensor]
    group: GroupState


def has_trust(param: Tensor) -> bool:
    """Return whether a tensor's step is multiplied by its trust ratio: vectors and scalars have none."""
    return param.dim() > 1


def number_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of norms and numbers: float64, in which squares of float32 neither overflow nor vanish, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def tensor_norms(tensors: Tensors, dtype: torch.dtype) -> Tensor:
    """Return the norm of each tensor, computed in a dtype, [n]; works under vmap."""
    return torch.stack([torch.linalg.vector_norm(x, dtype=dtype) for x in tensors])


def start_group(params: Tensors) -> GroupState:
    """Return the numbers of a group before its first step."""
    device = params[0].device
    dtype = number_dtype(device)
    none, each, trusted = (torch.zeros(shape, dtype=dtype, device=device) for shape in ((), len(params), sum(map(has_trust, params))))
    return GroupState(none, none.expand(3).clone(), each, trusted)


def clip_group(norms: Tensor, sizes: Sequence[int], state: GroupState, h: Hyperparameters, eps_mode: str) -> tuple[GroupState, Clipped]:
    """Return the numbers after seeing the norms of new gradients, and what the tensors need to know.

    Args:
        norms: of the raw gradients, [n], `number_dtype`.
        sizes: elements of each tensor.
        state: before the step; `update_norm` stays as it is.
        h: hyperparameters in `number_dtype`.
        eps_mode: of `EPS_MODES`.
    """
    norm = torch.linalg.vector_norm(torch.where(norms.isfinite(), norms, 0.0))
    norm_max = torch.maximum(norm, state.norm_max - h.clip_decay * state.norm_max)
    longest = h.clip_ratio * norm_max
    clip = torch.where(norm > longest, longest / norm, 1.0)
    decays = torch.stack([h.one_minus_beta1, h.one_minus_beta2, h.trust_decay])
    filled = state.filled + decays * (1.0 - state.filled)
    weights = decays / filled
    roots = torch.tensor([math.sqrt(size) for size in sizes], dtype=norms.dtype, device=norms.device)
    rms = torch.lerp(state.rms, clip * norms / roots, weights[..., 1].expand(norms.shape))
    eps = h.epsilon.expand(norms.shape)
    if eps_mode == "relative":
        eps = torch.where(rms == 0, math.inf, h.epsilon * rms)
    return GroupState(norm_max, filled, rms, state.update_norm), Clipped(clip, eps, weights)


def move_tensors(
    params: Tensors,
    grads: Tensors,
    momentum: Tensors,
    largest: Tensors,
    update_norm: Tensor,
    clipped: Clipped,
    h: Hyperparameters,
    norms: Norms = tensor_norms,
) -> tuple[list[Tensor], Tensor, Parts]:
    """Return new parameters, the new `update_norm`, and the parts, among them the new momenta and denominators.

    Args:
        params, grads, momentum, largest: n tensors each, of one dtype and device; the gradients raw.
        update_norm: [k] of these tensors.
        clipped: of `clip_group`, for these tensors.
        h: hyperparameters in `number_dtype`.
        norms: computes the norms of tensors that are like the parameters with trust, [k], in a dtype.
    """
    dtype, count = params[0].dtype, (len(params),)
    clip, decay2, weight_decay = clipped.clip.to(dtype), h.one_minus_beta2.to(dtype), h.weight_decay.to(dtype)
    eps_n = clipped.eps.to(dtype)
    each = zip(params, grads, momentum, largest, eps_n.unbind(), clipped.weights[..., 0].to(dtype).expand(count).unbind(), strict=True)
    clean: list[Tensor] = []
    momenta: list[Tensor] = []
    denominators: list[Tensor] = []
    updates: list[Tensor] = []
    for param, raw, mean, top, eps, weight in each:
        grad = clip * raw
        mean = torch.lerp(mean, grad, weight)
        top = torch.maximum(torch.addcmul(top, top, decay2, value=-1), grad.abs())
        clean.append(grad)
        momenta.append(mean)
        denominators.append(top)
        updates.append(torch.addcmul(mean / (top + eps), param, weight_decay))
    trusted = [i for i, param in enumerate(params) if has_trust(param)]
    rates = [h.lr] * len(params)
    if trusted:
        param_norm, norm = (norms([x[i] for i in trusted], dtype).to(update_norm.dtype) for x in (params, updates))
        update_norm = torch.lerp(update_norm, norm, clipped.weights[..., 2] if clipped.weights.dim() == 1 else clipped.weights[trusted, 2])
        unknown = (param_norm == 0) | (update_norm == 0)
        trust = torch.where(unknown, 1.0, param_norm / update_norm).clamp(min=MINIMUM_TRUST)
        for i, rate in zip(trusted, (h.lr * trust).unbind(), strict=True):
            rates[i] = rate
    rate_n = torch.stack(rates).to(dtype)
    ends = [torch.addcmul(param, update, rate, value=-1) for param, update, rate in zip(params, updates, rate_n.unbind(), strict=True)]
    return ends, update_norm, Parts(clean, momenta, denominators, eps_n, updates, list(params), rate_n, clip)


def unitless_start(params: Mapping[str, Tensor]) -> UnitlessState:
    """Return the state of a run before its first step; `params` are of one dtype and device."""
    momentum, largest = ({name: torch.zeros_like(param) for name, param in params.items()} for _ in range(2))
    return UnitlessState(momentum, largest, start_group([params[name] for name in sorted(params)]))


def unitless_step(
    params: Mapping[str, Tensor], grads: Mapping[str, Tensor], state: UnitlessState, h: Hyperparameters, eps_mode: str = "relative"
) -> tuple[dict[str, Tensor], UnitlessState, Parts]:
    """Return (params, state, parts) after one step of a run in which all tensors are one group.

    Pure, consumes no randomness, works under `torch.func.vmap` with hyperparameters of each run.

    Args:
        params, grads: by name, equal shapes, float32 or float64 of one device.
        state: of `unitless_start` or the last call.
        h: 0-d tensors of any floating dtype on that device.
        eps_mode: "relative" or "absolute".
    """
    names = sorted(params)
    starts, raw = [params[name] for name in names], [grads[name] for name in names]
    h = Hyperparameters(*(value.to(state.group.norm_max.dtype) for value in h))
    norms = tensor_norms(raw, state.group.norm_max.dtype)
    group, clipped = clip_group(norms, [param.numel() for param in starts], state.group, h, eps_mode)
    momentum, largest = [state.momentum[name] for name in names], [state.largest[name] for name in names]
    ends, update_norm, parts = move_tensors(starts, raw, momentum, largest, group.update_norm, clipped, h)
    momenta, denominators = dict(zip(names, parts.momenta, strict=True)), dict(zip(names, parts.denominators, strict=True))
    new = UnitlessState(momenta, denominators, group._replace(update_norm=update_norm))
    return dict(zip(names, ends, strict=True)), new, parts
