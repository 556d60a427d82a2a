"""Adapt rate and momentum during training by the gradient of a short look-ahead, with fresh batches or with one batch repeated.

Every so many training steps, some meta steps: unroll five heavy-ball steps from the present weights and buffers, take the mean loss of five
batches at their end, differentiate it by log(a / (1 - m)) and log(1 - m), and take a step of Adam on these. *Stochastic* look-aheads draw
ten fresh batches; *deterministic* ones repeat one, which takes the noise out of the unrolled steps, and with it the reason to shrink the
rate. Training itself sees fresh batches in both. A third run keeps the hand-set rate.

The derivative is exact: reverse mode through the unrolled steps.

Legend: S seeds, N stacked runs, K batches of a look-ahead, M moments.

Source: Wu, Ren, Liao, Grosse, 2018, section 4.2 and its code. Differs: meta steps are more frequent for a shorter run, go on to its end,
and do not give way to a decay at half-time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.func import grad, vmap

from metaopt import seeds
from metaopt.estimators.short_horizon.network import (
    HAND_RATE,
    MOMENTUM,
    Rates,
    Weights,
    batches,
    heavy_ball,
    pretrained,
    stacked_rows,
    train,
)
from metaopt.tasks.task import Batch, Task

__all__ = ["Online", "OnlineRun", "hyper_gradient", "look_ahead_loss", "online", "unpacked"]

_LOOK_AHEAD = 5  # steps
_META_STEPS = 10  # at a time
_META_RATE = 1e-2  # of Adam
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8
_RUN, _META = 1, 2  # branches of a seed's key

HyperGradient = Callable[[Tensor, Weights, Batch, Batch], Tensor]


@dataclass(frozen=True, eq=False)
class OnlineRun:
    """One kind of run.

    Attributes:
        name: `stochastic`, `deterministic` or `hand-set`.
        rate, momentum, loss: at each moment [M, S].
    """

    name: str
    rate: Tensor
    momentum: Tensor
    loss: Tensor

    @property
    def collapse(self) -> Tensor:
        """Rate at the end over that at the start [S]."""
        return self.rate[-1] / self.rate[0]


@dataclass(frozen=True, eq=False)
class Online:
    """The whole experiment: training steps of each moment [M], the runs, and meta steps left out because a derivative was not finite."""

    moments: tuple[int, ...]
    runs: tuple[OnlineRun, ...]
    skipped: int


def unpacked(hyper: Tensor) -> tuple[Tensor, Tensor]:
    """Return rate and momentum of (log(a / (1 - m)), log(1 - m)) [..., 2]."""
    left = torch.exp(hyper[..., 1])
    return torch.exp(hyper[..., 0]) * left, 1.0 - left


def look_ahead_loss(task: Task, hyper: Tensor, weights: Weights, ahead: Batch, judged: Batch) -> Tensor:
    """Return the mean loss of the judging batches [K, ...] after one step on each batch of `ahead` [K, ...]; of one run."""
    rate, momentum = unpacked(hyper)
    for k in range(len(ahead["y"])):
        weights = heavy_ball(task, weights, {name: value[k] for name, value in ahead.items()}, rate, momentum)
    # Batches of one size: the mean over all their examples is the mean of their losses.
    loss: Tensor = task.loss(weights.params, {name: value.flatten(0, 1) for name, value in judged.items()})
    return loss


def hyper_gradient(task: Task) -> HyperGradient:
    """Return the derivative [N, 2] of `look_ahead_loss` by the two numbers, for stacked runs; batches are [K, N, ...]."""

    def one(hyper: Tensor, weights: Weights, ahead: Batch, judged: Batch) -> Tensor:
        found: Tensor = grad(lambda h: look_ahead_loss(task, h, weights, ahead, judged))(hyper)
        return found

    return cast(HyperGradient, vmap(one, in_dims=(0, 0, 1, 1)))


def online(task: Task, steps: int, every: int, inner_seeds: Sequence[int]) -> Online:
    """Return the experiment.

    Args:
        task: of `network_task`.
        steps: training steps.
        every: training steps between two lots of ten meta steps; the moments.
        inner_seeds: S of them.
    """
    keys_S = torch.stack([seeds.key("short_horizon_online", seed) for seed in inner_seeds])
    count = len(inner_seeds)
    keys = keys_S.repeat(3)
    repeats = torch.arange(2 * count) >= count
    weights, slope = pretrained(task, keys), hyper_gradient(task)
    hand = torch.tensor([HAND_RATE / (1.0 - MOMENTUM), 1.0 - MOMENTUM]).log().repeat(count, 1)
    hyper = hand.repeat(2, 1)
    first, second = torch.zeros_like(hyper), torch.zeros_like(hyper)
    noted, losses, made, skipped = [hyper], [], 0, 0
    for begin in range(0, steps, every):
        adapting = stacked_rows(weights, slice(2 * count))
        for _ in range(_META_STEPS):
            clocks = torch.arange(2 * _LOOK_AHEAD) + 2 * _LOOK_AHEAD * made
            drawn = batches(task, seeds.fold_in(keys[: 2 * count], _META), clocks)
            # The control: the first batch in all places, judging included.
            drawn = {name: torch.where(_like(repeats, value), value[:1], value) for name, value in drawn.items()}
            ahead, judged = (
                {name: value[half] for name, value in drawn.items()} for half in (slice(_LOOK_AHEAD), slice(_LOOK_AHEAD, None))
            )
            gradient = slope(hyper, adapting, ahead, judged)
            usable = torch.isfinite(gradient).all(1, keepdim=True)
            skipped += int((~usable).sum())
            gradient = torch.where(usable, gradient, 0.0)
            made += 1
            first, second = _BETA1 * first + (1 - _BETA1) * gradient, _BETA2 * second + (1 - _BETA2) * gradient**2
            size = (second / (1 - _BETA2**made)).sqrt() + _EPS
            hyper = torch.where(usable, hyper - _META_RATE * first / (1 - _BETA1**made) / size, hyper)
        rates = _constant(torch.cat([hyper, hand]))
        length = min(every, steps - begin)
        weights, loss = train(
            task, weights, seeds.fold_in(keys, _RUN), length, rates, (begin, *([steps] if begin + length == steps else [])), begin
        )
        losses.append(loss)
        noted.append(hyper)
    numbers = [*unpacked(torch.cat([torch.stack(noted), hand.expand(len(noted), -1, -1)], 1)), torch.cat(losses)]
    parts = [part.reshape(-1, 3, count).unbind(1) for part in numbers]
    named = zip(("stochastic", "deterministic", "hand-set"), *parts, strict=True)
    return Online((*range(0, steps, every), steps), tuple(OnlineRun(*run) for run in named), skipped)


def _constant(hyper: Tensor) -> Rates:
    values = unpacked(hyper)
    return lambda _: values


def _like(choice_N: Tensor, value: Tensor) -> Tensor:
    """Return the choice as [1, N, 1, ...], to go with batches [K, N, ...]."""
    return choice_N.reshape(1, -1, *[1] * (value.ndim - 2))
