"""What VeLO and Celo look at: 30 features of a weight, 12 of a tensor, and 18 of the run.

Legend: n weights of one tensor, K decays.

Source: Metz et al., 2022, "VeLO: training versatile learned optimizers by scaling up", appendix B, and its code release. Differs: where a
vector's factored second moment is below 1e-25 (gradients below about 1e-12) it counts as 1e-25; its derivative would be infinite.
"""

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.update_rules.factored_features import FACTORED_DECAYS, MOMENTUM_DECAYS, init_accumulators
from metaopt.learners.update_rules.features import factored_moments, moving_average
from metaopt.learners.update_rules.loss_buffer import LOSS_FEATURES, init_loss_buffer, loss_features, update_loss_buffer
from metaopt.learners.update_rules.rule import State

__all__ = [
    "FEATURES",
    "FRACTIONS",
    "RUN_FEATURES",
    "TENSOR_FEATURES",
    "accumulate",
    "clipped",
    "init_accumulators",
    "init_loss_buffer",
    "mean_square",
    "run_features",
    "tensor_features",
]

# Progress at which the features of the run turn from -1 to 1; the last one lies behind the end.
FRACTIONS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
RUN_FEATURES = len(FRACTIONS) + LOSS_FEATURES
_RANKS = 5
TENSOR_FEATURES = 1 + _RANKS + 2 * len(MOMENTUM_DECAYS)


def _each(name: str, decays: tuple[float, ...]) -> list[str]:
    return [f"{name} {decay}" for decay in decays]


# Published weights are stored in this order.
FEATURES = (
    *("gradient", "clipped gradient", "weight"),
    *_each("momentum", MOMENTUM_DECAYS),
    "second moment",
    *_each("normalised momentum", MOMENTUM_DECAYS),
    "inverse root second moment",
    *_each("factored normalised gradient", FACTORED_DECAYS),
    "normalised gradient",
    *_each("row moment", FACTORED_DECAYS),
    *_each("column moment", FACTORED_DECAYS),
    *_each("inverse root row moment", FACTORED_DECAYS),
    *_each("inverse root column moment", FACTORED_DECAYS),
    *_each("factored normalised momentum", MOMENTUM_DECAYS),
)
_SECOND_DECAY = 0.999
_LARGEST_GRADIENT = 1e3
_CLIP = 0.1
_EPS_V, _EPS_ROOT = 1e-6, 1e-8
_FLOOR = 1e-30  # added to every squared gradient, so that a weight without gradient has a second moment
_SMALLEST_MOMENT = 1e-25


def clipped(grad: Tensor) -> Tensor:
    """Return the gradient with each entry in [-1000, 1000]."""
    return grad.clamp(-_LARGEST_GRADIENT, _LARGEST_GRADIENT)


def mean_square(values: Tensor) -> Tensor:
    """Return the mean square as [1]: forward-mode derivatives of a Python number times a 0-d tensor come out in float64 under vmap."""
    return (values * values).mean().reshape(1)


def accumulate(param: Tensor, grad: Tensor, state: State) -> tuple[Tensor, State]:
    """Return (features [30, n], not normalised, in the order of `FEATURES`; state) after one gradient, already clipped.

    Args:
        param, grad: one tensor each, equal shapes, not empty.
        state: as `init_accumulators` or the last call returned it; other entries are ignored.
    """
    m = moving_average(state["m"], grad, MOMENTUM_DECAYS)
    v = _SECOND_DECAY * state["v"] + (1 - _SECOND_DECAY) * grad * grad
    moments, factor, row, column = factored_moments(grad, state, FACTORED_DECAYS, dense_floor=_FLOOR)
    inverse = torch.rsqrt(v + _EPS_V)
    momentum_factor = factor if param.dim() >= 2 else torch.rsqrt(row.clamp(min=_SMALLEST_MOMENT))
    roots = [torch.rsqrt(row + _EPS_ROOT), torch.rsqrt(column + _EPS_ROOT)]
    groups = [grad, grad.clamp(-_CLIP, _CLIP), param, m, v, m * inverse, inverse, grad * factor, grad * inverse]
    groups += [row, column, *roots, m * momentum_factor]
    return torch.cat([group.reshape(-1, param.numel()) for group in groups]), {"m": m, "v": v, **moments}


def run_features(buffer: State, t: Tensor, loss: Tensor | None, horizon: Tensor | None) -> tuple[Tensor, State]:
    """Return ([18] features that all tensors share: nine of progress, nine of the loss; the loss buffer with this loss).

    Args:
        buffer: as `init_loss_buffer` or the last call returned it.
        t: 0-d, updates made so far.
        loss: 0-d, of this batch before the step.
        horizon: 0-d, steps of the run, >= 1.

    Raises:
        ConfigError: no loss or no horizon.
    """
    if loss is None or horizon is None:
        missing = "loss" if loss is None else "number of steps of the run"
        raise ConfigError(f"the rule reads the {missing}, got None; pass it")
    buffer = update_loss_buffer(buffer, loss, horizon)
    turning = torch.tensor(FRACTIONS, dtype=horizon.dtype, device=horizon.device)
    progress = torch.tanh(10.0 * ((t.to(horizon.dtype) / horizon).reshape(1) - turning))
    return torch.cat([progress, loss_features(buffer)]), buffer


def tensor_features(param: Tensor, state: State) -> Tensor:
    """Return [12] features of a tensor and its accumulators as they are before this step's gradient.

    Log size of the mean second moment (1), rank as one-hot (5; the number of axes longer than one), log sizes of the variance of momenta
    (3) and of the mean square of second moment minus mean momentum (3; the release takes that mean, so weights expect it). Accumulators
    are in units of the tensor's RMS, second moments too.
    """
    scale = torch.rsqrt(mean_square(param).clamp(min=1e-9))
    m, v = state["m"].reshape(len(MOMENTUM_DECAYS), -1), state["v"].reshape(1, -1)
    mean_m, mean_v = m.mean(1) * scale, v.mean(1) * scale
    square = scale * scale
    variance_m = (m - m.mean(1, keepdim=True)).square().mean(1) * square
    variance_v = (v - v.mean(1, keepdim=True)).square().mean(1) * square
    rank = sum(size > 1 for size in param.shape)
    one_hot = torch.tensor([float(rank == i) for i in range(_RANKS)], dtype=param.dtype, device=param.device)
    # mean (v - mean m)^2 = variance of v + (mean v - mean m)^2
    return torch.cat([_log_size(mean_v), one_hot, _log_size(variance_m), _log_size(variance_v + (mean_v - mean_m).square())])


def _log_size(value: Tensor) -> Tensor:
    return 0.5 * torch.log(1e-8 + (10.0 * value).abs()).clamp(-5.0, 5.0)
