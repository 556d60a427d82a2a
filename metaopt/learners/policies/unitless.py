"""Thirteen statistics of a training step that carry no units: they do not tell how the loss is scaled.

| name (in the order of `STATISTICS`)           | what it says                                                                   |
| --------------------------------------------- | ------------------------------------------------------------------------------ |
| did_grad_clip                                 | 1 where the gradient was shortened, else 0                                     |
| sqrt_v_hat_gt_epsilon                         | share of weights whose denominator is ruled by the gradients, not by epsilon   |
| mean_log_abs_adam_pre_lr_update               | mean log size of a weight's step before the rate; 0 when all signs agree       |
| log_two_regimes_scale                         | log norm of momentum over gradient: below 0 when gradients cancel over time    |
| log_adam_update_norm_over_param_norm          | log relative change of the tensor in this step                                 |
| log_noise_scale                               | log norm of momentum over its distance to the gradient: signal over noise      |
| cosine_similarity_grad_momentum               | does this gradient go on in the direction of the past ones?                    |
| cosine_similarity_grad_param                  | does it pull the weights towards zero (above 0) or away from it?               |
| log_lamb                                      | log norm of weights over update, the trust ratio of LAMB                       |
| cosine_similarity_grad_update                 | does the step go down this very gradient?                                      |
| logit_cdf_cosine_similarity_grad_momentum     | the cosine as log odds against chance, for which a tensor's size is no matter  |
| logit_cdf_cosine_similarity_grad_update       | the same, with the update                                                      |
| cdf_cosine_similarity_grad_param              | the same with the weights, as a probability                                    |

The cosine of two random directions in d dimensions has variance 1 / d, so sqrt(d) cos is about standard normal, its normal CDF about
uniform, and the log odds of that about standard logistic (variance pi^2 / 3), for a bias of 64 weights as for a matrix of a million.

Multiplying gradients, momentum, denominator and epsilon by a power of two changes no bit of the result, as long as none of them gets
near the smallest normal number: ratios are formed before their log, nothing with a unit has a constant added, and vectors are divided
by their largest entry before anything is squared. Any other scale changes only the rounding. `log_lamb` alone tells the scale of weights.

Degenerate input has one meaning each, and gives numbers, never NaN:

- zero over zero counts as one, so its log is 0: nothing is known, and a tensor that stands still should not look extreme;
- a ratio outside [1 / `RATIO_LIMIT`, `RATIO_LIMIT`], zero or infinity among them, counts as the nearer end: log +-36.8;
- `log_noise_scale` stops at log `NOISE_LIMIT` = 13.8 instead. The corrected momentum of a first step is the gradient up to rounding; what
  is left of the difference there is no noise to measure, and its size is an accident of the machine;
- a cosine with a zero vector is 0: log odds 0, probability 0.5;
- an entry of the update below `UPDATE_FLOOR` counts as that. Updates have no unit, so this floor does not bring one in.

Non-finite input is not hidden: what it enters becomes non-finite, except for the first two, which compare.

Source: Almeida et al., 2021, "A generalizable approach to learning optimizers" (2106.00958) and its code, which chose the statistics.
Differs: the logs there have 1e-8 added to the norm of a gradient, which makes the scale of the loss visible, and are subtracted; here they
are logs of ratios. There the log of the update adds 1e-8, here that is a floor. There weights are read after the update in the cosines and
before it in the norms; here all are from before it, where the gradient was taken. The log odds come from the smaller of both
probabilities, because 1 - 1e-8 is 1 in float32.

Legend: n tensors, S = 13 statistics.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "NOISE_LIMIT",
    "RATIO_LIMIT",
    "STATISTICS",
    "UPDATE_FLOOR",
    "StepMean",
    "TensorSums",
    "add_step",
    "formulas",
    "mean_statistics",
    "start_mean",
    "tensor_statistics",
    "traced_statistics",
]

STATISTICS = (
    "did_grad_clip",
    "sqrt_v_hat_gt_epsilon",
    "mean_log_abs_adam_pre_lr_update",
    "log_two_regimes_scale",
    "log_adam_update_norm_over_param_norm",
    "log_noise_scale",
    "cosine_similarity_grad_momentum",
    "cosine_similarity_grad_param",
    "log_lamb",
    "cosine_similarity_grad_update",
    "logit_cdf_cosine_similarity_grad_momentum",
    "logit_cdf_cosine_similarity_grad_update",
    "cdf_cosine_similarity_grad_param",
)

RATIO_LIMIT = 1e16  # the smallest rate and trust of the published bounds, 1e-8 and 1e-3, leave room for updates down to 1e-5
NOISE_LIMIT = 1e6  # ten times less than one over the rounding of float32
UPDATE_FLOOR = 1e-8  # of the source
PROBABILITY_FLOOR = 1e-8  # probabilities are clipped to [1e-8, 1 - 1e-8], log odds to +-18.4, as in the source


class TensorSums(NamedTuple):
    """What `formulas` needs of a tensor, each 0-d for one tensor, or [n]: norms, cosines with the gradient, means, root of the size."""

    grad: Tensor  # norms
    momentum: Tensor
    noise: Tensor
    update: Tensor
    param: Tensor
    cos_momentum: Tensor  # with the gradient
    cos_param: Tensor
    cos_update: Tensor
    above_eps: Tensor
    log_update: Tensor
    root_size: Tensor


def tensor_statistics(
    grad: Tensor,
    momentum: Tensor,
    denominator: Tensor,
    eps: Tensor | float,
    update: Tensor,
    param: Tensor,
    rate: Tensor | float,
    clip: Tensor | float = 1.0,
) -> Tensor:
    """Return the statistics of one tensor at one step, in the order of `STATISTICS`.

    The five tensors are of one shape with at least one entry, and of any floating dtype; halves are computed in float32. Pure: it mutates
    nothing, waits for no device, and works under `torch.func.vmap` (pass what differs between runs as tensors). Not made for gradients.

    Args:
        grad: gradient after clipping.
        momentum: first moment, corrected for its bias.
        denominator: what epsilon is compared with and added to, the root of the corrected second moment.
        eps: that epsilon, (0, inf), 0-d or a number.
        update: the step before the rate, as subtracted.
        param: weights before the step.
        rate: factor on `update` in this step, trust ratio included, [0, inf), 0-d or a number.
        clip: factor that clipping put on the gradient; below 1 where it did anything.

    Returns:
        [S], float32, or float64 where the gradient is.

    Source: Almeida et al., 2021 (2106.00958); differences and degenerate input: see the module.
    """
    parts = _measure(eps, *(_wide(x) for x in (grad, momentum, denominator, update, param)))
    return formulas(parts, _scalar(rate, parts.grad), _scalar(clip, parts.grad))


def traced_statistics(
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    denominators: Sequence[Tensor],
    eps: Sequence[Tensor | float],
    updates: Sequence[Tensor],
    params: Sequence[Tensor],
    rates: Sequence[Tensor | float],
    clip: Tensor | float = 1.0,
) -> Tensor:
    """Return what `mean_statistics` does, of plain operations that `torch.func.vmap` knows; `eps` and `rates` go tensor by tensor.

    Norms and products are of each tensor; the formulas run once, on all of them.
    """
    lists = [[_wide(x) for x in tensors] for tensors in (grads, momenta, denominators, updates, params)]
    each = [_measure(e, *tensors) for *tensors, e in zip(*lists, eps, strict=True)]
    parts = TensorSums(*(torch.stack(column) for column in zip(*each, strict=True)))
    return formulas(parts, torch.stack([_scalar(rate, parts.grad) for rate in rates]), _scalar(clip, parts.grad)).mean(0)


def mean_statistics(
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    denominators: Sequence[Tensor],
    eps: Tensor | float,
    updates: Sequence[Tensor],
    params: Sequence[Tensor],
    rates: Tensor | float,
    clips: Tensor | float = 1.0,
) -> Tensor:
    """Return the unweighted mean over tensors of `tensor_statistics`, with fewer and larger kernels.

    Nothing here waits for the device: reading the result (`.tolist()`) is the one synchronisation. All tensors are on one device.

    Args:
        grads, momenta, denominators, updates, params: a tensor of one shape each for every tensor of the model, in one order.
        eps, rates, clips: as for one tensor: a number or 0-d for all, or [n] on the same device.

    Returns:
        [S], equal to the mean of the single ones up to rounding.
    """
    lists = [[_wide(x) for x in tensors] for tensors in (grads, momenta, denominators, updates, params)]
    grad_n, momentum_n, denominator_n, update_n, param_n = lists
    norm_grad, to_grad = _split_all(grad_n)
    norm_momentum, to_momentum = _split_all(momentum_n)
    norm_update, to_update = _split_all(update_n)
    norm_param, to_param = _split_all(param_n)
    eps_n = _scalar(eps, grad_n[0]).expand(len(grad_n)).unbind()
    parts = TensorSums(
        norm_grad,
        norm_momentum,
        _split_all(list(torch._foreach_sub(momentum_n, grad_n)))[0],
        norm_update,
        norm_param,
        _sums(torch._foreach_mul(to_grad, to_momentum)),
        _sums(torch._foreach_mul(to_grad, to_param)),
        _sums(torch._foreach_mul(to_grad, to_update)),
        torch.stack([_share_above(s, e) for s, e in zip(denominator_n, eps_n, strict=True)]),
        torch.stack([_mean_log(u) for u in update_n]),
        torch.stack([_scalar(math.sqrt(g.numel()), g) for g in grad_n]),
    )
    return formulas(parts, _scalar(rates, grad_n[0]), _scalar(clips, grad_n[0])).mean(0)


def _measure(eps: Tensor | float, grad: Tensor, momentum: Tensor, denominator: Tensor, update: Tensor, param: Tensor) -> TensorSums:
    norm_grad, to_grad = _split(grad)
    norm_momentum, to_momentum = _split(momentum)
    norm_update, to_update = _split(update)
    norm_param, to_param = _split(param)
    return TensorSums(
        norm_grad,
        norm_momentum,
        _split(momentum - grad)[0],
        norm_update,
        norm_param,
        (to_grad * to_momentum).sum(),
        (to_grad * to_param).sum(),
        (to_grad * to_update).sum(),
        _share_above(denominator, _scalar(eps, grad)),
        _mean_log(update),
        _scalar(math.sqrt(grad.numel()), grad),
    )


class StepMean(NamedTuple):
    """Unweighted mean over the measured steps since the last decision, as plain tensors.

    Attributes:
        mean: [S].
        steps: measured steps in it, 0-d int64.
    """

    mean: Tensor
    steps: Tensor


def start_mean(device: torch.device | str | None = None) -> StepMean:
    """Return the mean of no step."""
    return StepMean(torch.zeros(len(STATISTICS), device=device), torch.zeros((), dtype=torch.int64, device=device))


def add_step(state: StepMean, row: Tensor) -> StepMean:
    """Return the mean with one more measured step `row` [S] in it, on the device of `row`; a non-finite entry stays until a new start."""
    steps = state.steps + 1
    return StepMean(state.mean + (row - state.mean) / steps, steps)


def formulas(parts: TensorSums, rate: Tensor, clip: Tensor) -> Tensor:
    """Return the statistics [S] or [n, S] of what was summed up over tensors; rate and clip factor are 0-d or [n]."""
    z_momentum, z_param, z_update = (parts.root_size * c for c in (parts.cos_momentum, parts.cos_param, parts.cos_update))
    columns = (
        (clip < 1.0).to(parts.grad.dtype),
        parts.above_eps,
        parts.log_update,
        _log_ratio(parts.momentum, parts.grad),
        _log_ratio(rate * parts.update, parts.param),
        _log_ratio(parts.momentum, parts.noise, NOISE_LIMIT),
        parts.cos_momentum,
        parts.cos_param,
        _log_ratio(parts.param, parts.update),
        parts.cos_update,
        _log_odds(z_momentum),
        _log_odds(z_update),
        torch.special.ndtr(z_param),
    )
    shape = parts.grad.shape  # a rate or a clip factor may be one for all tensors
    return torch.stack([column.expand(shape) for column in columns], dim=-1)


def _log_ratio(over: Tensor, under: Tensor, limit: float = RATIO_LIMIT) -> Tensor:
    ratio = torch.where((over == 0) & (under == 0), 1.0, over / under)
    return ratio.clamp(1.0 / limit, limit).log()


def _log_odds(z: Tensor) -> Tensor:
    tail: Tensor = torch.special.ndtr(-z.abs()).clamp(min=PROBABILITY_FLOOR)  # the smaller side keeps its digits; log_ndtr has no vmap rule
    return z.sign() * (torch.log1p(-tail) - tail.log())


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return norm and direction; a zero vector has the direction zero."""
    peak = x.abs().amax()
    scaled = x / torch.where(peak == 0, 1.0, peak)  # squares of this neither overflow nor vanish
    norm = scaled.square().sum().sqrt()
    return peak * norm, scaled / torch.where(norm == 0, 1.0, norm)


def _split_all(tensors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    peak_n = torch.stack(torch._foreach_norm(tensors, math.inf))
    scaled = torch._foreach_div(tensors, torch.where(peak_n == 0, 1.0, peak_n).unbind())
    norm_n = torch.stack(torch._foreach_norm(scaled, 2))
    return peak_n * norm_n, list(torch._foreach_div(scaled, torch.where(norm_n == 0, 1.0, norm_n).unbind()))


def _share_above(denominator: Tensor, eps: Tensor) -> Tensor:
    return (denominator > eps).to(denominator.dtype).mean()


def _mean_log(update: Tensor) -> Tensor:
    return update.abs().clamp(min=UPDATE_FLOOR).log().mean()


def _sums(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([x.sum() for x in tensors])


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _scalar(value: Tensor | float, like: Tensor) -> Tensor:
    # Filled on the device: a copy from the host would wait for it.
    return value.to(like.dtype) if isinstance(value, Tensor) else torch.full((), value, dtype=like.dtype, device=like.device)
