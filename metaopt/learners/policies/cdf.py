"""Where a value stands in its own history: a weighted normal CDF that knows neither unit nor offset nor the number of decisions.

At decision k the values x_1 .. x_k sit at the positions q_i = (i - 1/2) / k of the run so far and have the weights w_i = 1 + (W - 1) q_i.
With their weighted mean mu and variance v, the feature is Phi((x_k - mu) / sqrt(v)), and 1/2 where v = 0. A larger end weight W looks
more at the recent past. Positions are relative: the same curve seen at 16 or at 128 decisions gives about the same feature.

All weights change when k does, but they are affine in h_i = i - 1/2, so four sums make the formula exact without the history:

    sum w_i x_i = sum x_i + (W - 1) / k * sum h_i x_i,  sum w_i x_i^2 likewise,  sum w_i = k (1 + W) / 2.

The sums are of d_i = x_i - x_1, in float64. Their mean square minus squared mean loses no more than can be spared, because x_1 is itself in
the history, with the share p = w_1 / sum w >= 2 / (k (1 + W)): v >= p mu^2 (mu of the d_i), so that the mean square is at most
v (1 + 1 / p), a factor of about 10,000 for k = 1000 and W = 20. A shift to anything outside of the history has no such bound.

A value that is not finite, or beyond `LARGEST` where squares would overflow, gets the feature 1, as the worst; the history takes the last
usable value in its place. Before the first usable value it is filled with that value, once it comes.

A value that only rounding moves would jump between 0 and 1. Who knows the size of such differences gives it as `noise`, whose square is
added to v: what spreads much less is told as 1/2, what spreads much more is told as without it.

Source: Almeida et al., 2021, "A generalizable approach to learning optimizers" (2106.00958), names ("integral_cdf") and end weights. The
paper gives no formula; this one is ours.

Legend: [...] any shape of features, E = 5 end weights.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["END_WEIGHTS", "LARGEST", "CdfState", "cdf_push", "cdf_start"]

END_WEIGHTS = (1.25, 2.5, 5.0, 10.0, 20.0)
LARGEST = 1e150


class CdfState(NamedTuple):
    """All that is kept of a history, plain tensors: `state._asdict()` saves it, `CdfState(**saved)` goes on with the same bits.

    Attributes:
        decisions: number of them so far, 0-d int64.
        started: whether a usable value has come, [...] bool.
        first: the first usable value, which the others are measured from, [...] float64.
        last: the last usable value minus `first`, [...] float64.
        sums: of d, h d, d^2 and h d^2, [4, ...] float64.
    """

    decisions: Tensor
    started: Tensor
    first: Tensor
    last: Tensor
    sums: Tensor


def cdf_start(shape: tuple[int, ...] = (), device: torch.device | str | None = None) -> CdfState:
    """Return the empty history of features of a shape; decisions are rare, so the host is the place for it (float64 is needed)."""
    zeros = torch.zeros(shape, dtype=torch.float64, device=device)
    sums = torch.zeros((4, *shape), dtype=torch.float64, device=device)
    return CdfState(torch.zeros((), dtype=torch.int64, device=device), zeros.bool(), zeros, zeros.clone(), sums)


def cdf_push(state: CdfState, x: Tensor, noise: float = 0.0) -> tuple[CdfState, Tensor]:
    """Return the history with one more decision, and the features at it.

    Pure, also under `torch.func.vmap`; mutates nothing.

    Args:
        state: of `cdf_start` or an earlier call.
        x: the values at this decision, [...] of the state's shape, any floating dtype.
        noise: size of the differences that mean nothing, in units of x, [0, inf).

    Returns:
        The new state, and the features in [0, 1], [..., E] float64, one for each of `END_WEIGHTS`.
    """
    x = x.to(torch.float64)
    usable = x.abs() <= LARGEST  # False for NaN
    x = torch.where(usable, x, 0.0)
    first = torch.where(usable & ~state.started, x, state.first)
    d = torch.where(usable, x - first, state.last)
    count = state.decisions + 1
    h = count - 0.5
    sums = state.sums + torch.stack([d, h * d, d.square(), h * d.square()])
    new = CdfState(count, state.started | usable, first, d, sums)

    weight = torch.tensor(END_WEIGHTS, dtype=torch.float64, device=x.device)
    sum_d, sum_hd, sum_dd, sum_hdd = (s.unsqueeze(-1) for s in sums.unbind())
    slope, total = (weight - 1.0) / count, count * (1.0 + weight) / 2.0
    mean = (sum_d + slope * sum_hd) / total
    variance = ((sum_dd + slope * sum_hdd) / total - mean.square()).clamp(min=0.0)
    spread = torch.where(variance > 0, variance + noise**2, 1.0).sqrt()
    z = torch.where(variance > 0, (d.unsqueeze(-1) - mean) / spread, 0.0)
    return new, torch.where(usable.unsqueeze(-1), torch.special.ndtr(z), 1.0)
