"""What a rule knows of the loss so far: ten moving averages between 10 steps and the whole run, and nine features of them.

Source: Metz et al., 2022, "VeLO: training versatile learned optimizers by scaling up", appendix B, and its code release. Differs: the
averages carry the sum of their weights, so that they stay averages when the length of the run, and with it each decay, changes on the way.
"""

import torch
from torch import Tensor

from metaopt.learners.update_rules.rule import State

__all__ = ["AVERAGES", "LOSS_FEATURES", "init_loss_buffer", "loss_features", "update_loss_buffer"]

AVERAGES = 10
LOSS_FEATURES = AVERAGES - 1
_NO_MINIMUM = 1e12
_SILENT_STEPS = 2


def init_loss_buffer(like: Tensor) -> State:
    """Return the buffer before the first loss, in the dtype and on the device of `like`."""
    zeros = like.new_zeros(AVERAGES)
    return {
        "loss_mean": zeros,
        "loss_weight": torch.zeros_like(zeros),
        "loss_minimum": like.new_full((AVERAGES,), _NO_MINIMUM),
        "loss_count": like.new_zeros(()),  # stops at 3: it only tells the first steps apart
    }


def update_loss_buffer(buffer: State, loss: Tensor, horizon: Tensor) -> State:
    """Return the buffer after one more loss.

    Time constants are logarithmically spaced from 10 to `horizon` steps (downwards if that is below 10). A loss counts for at most twice
    the size of the largest average, whose weights already include the new step's, as released: after one loss l the cap is 1.05 l,
    and it rises to 2 l as the average of shortest memory fills.

    Args:
        buffer: as `init_loss_buffer` or the last call returned it; other entries are ignored.
        loss: 0-d.
        horizon: 0-d, >= 1; may differ from that of the last call.
    """
    mean, count = buffer["loss_mean"], buffer["loss_count"]
    steps = torch.linspace(0.0, 1.0, AVERAGES, dtype=mean.dtype, device=mean.device)
    constants = 10.0 ** (1.0 + (torch.log10(horizon.reshape(1)) - 1.0) * steps)
    rest = -torch.expm1(-1.0 / constants)  # 1 - decay
    weight = (1.0 - rest) * buffer["loss_weight"] + rest
    largest = (mean / weight).amax()
    cap = 2.0 * torch.where(count == 0, loss, largest).abs()
    mean = (1.0 - rest) * mean + rest * torch.minimum(cap, loss)
    minimum = torch.minimum(buffer["loss_minimum"], mean / weight)
    return {"loss_mean": mean, "loss_weight": weight, "loss_minimum": minimum, "loss_count": (count + 1.0).clamp(max=_SILENT_STEPS + 1.0)}


def loss_features(buffer: State) -> Tensor:
    """Return [9] features in [-1, 1]: how far each average is between its minimum (-1) and the next slower average (0) or above it.

    Zeros for the first two losses.
    """
    silent = buffer["loss_count"] <= _SILENT_STEPS
    mean = buffer["loss_mean"] / torch.where(silent, torch.ones_like(buffer["loss_weight"]), buffer["loss_weight"])
    minimum = buffer["loss_minimum"][:-1]
    span = (mean[1:] - minimum).clamp(min=1e-8)
    features = ((mean[:-1] - minimum) / span - 1.0).clamp(-1.0, 1.0)
    return torch.where(silent, torch.zeros_like(features), features)
