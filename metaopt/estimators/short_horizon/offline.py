"""Tune a decay of the rate for its loss after a look-ahead, then run it to the end.

Rate at step t: start (1 + t / time)^-power, with the time a quarter of the horizon. All settings of a search run the whole horizon at once,
and their loss is taken at each look-ahead: one search serves all of them. The setting of a look-ahead is the mean, on logarithmic scales,
of the best few. It then runs to the end on batches that the search has not seen. Each seed is a search of its own with its own network.

Legend: S seeds, C settings of a search, L look-aheads, M moments.

Source: Wu, Ren, Liao, Grosse, 2018, section 4.1 and its code (range of settings; 2,500 settings and the mean of the best 50 there).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.estimators.short_horizon.network import MOMENTUM, Rates, pretrained, stacked_rows, train
from metaopt.tasks.task import Task

__all__ = ["Offline", "OfflineRow", "decay_rates", "offline"]

_LOG10_START, _LOG10_POWER = (-3.0, -0.3), (-2.0, 2.3)  # closed ranges, uniform
_BEST = 3
_SETTINGS, _SEARCH, _RUN = 0, 1, 2  # branches of a seed's key


@dataclass(frozen=True, eq=False)
class OfflineRow:
    """What one look-ahead chose and led to.

    Attributes:
        look_ahead: steps.
        start, power: chosen settings [S].
        losses: training loss at each moment [M, S].
    """

    look_ahead: int
    start: Tensor
    power: Tensor
    losses: Tensor


@dataclass(frozen=True, eq=False)
class Offline:
    """The whole experiment.

    Attributes:
        steps: the horizon.
        moments: numbers of steps at which losses were taken [M].
        rows: one a look-ahead, ascending.
    """

    steps: int
    moments: tuple[int, ...]
    rows: tuple[OfflineRow, ...]

    @property
    def time(self) -> float:
        """Steps in which (1 + t / time) doubles."""
        return self.steps / 4

    def at(self, row: OfflineRow, step: int) -> list[float]:
        """Return the row's losses [S] after a number of steps."""
        found: list[float] = row.losses[self.moments.index(step)].tolist()
        return found


def decay_rates(start: Tensor, power: Tensor, time: float) -> Rates:
    """Return the rates [N] of each step, with the paper's momentum."""
    return lambda t: (start * (1.0 + t / time) ** -power, MOMENTUM)


def offline(task: Task, steps: int, look_aheads: Sequence[int], settings: int, inner_seeds: Sequence[int]) -> Offline:
    """Return the experiment.

    Args:
        task: of `network_task`.
        steps: the horizon.
        look_aheads: numbers of steps, at most the horizon.
        settings: C, of each search.
        inner_seeds: at least two.
    """
    ahead = sorted(look_aheads)
    keys_S = torch.stack([seeds.key("short_horizon_offline", seed) for seed in inner_seeds])
    networks_S = pretrained(task, keys_S)
    every = torch.arange(len(keys_S)).repeat_interleave(settings)
    log10_SC = torch.stack([_drawn(seeds.fold_in(key, _SETTINGS), settings) for key in keys_S])
    start, power = (10.0**log10_SC).flatten(0, 1).unbind(-1)
    begin = stacked_rows(networks_S, every)
    _, losses = train(task, begin, seeds.fold_in(keys_S, _SEARCH)[every], steps, decay_rates(start, power, steps / 4), ahead)
    best_LS = losses.reshape(-1, len(keys_S), settings).argsort(dim=2)[:, :, :_BEST]
    chosen_LS = torch.stack([log10_SC[torch.arange(len(keys_S))[:, None], best].mean(1) for best in best_LS])
    start, power = (10.0**chosen_LS).flatten(0, 1).unbind(-1)
    every = torch.arange(len(keys_S)).repeat(len(ahead))
    moments = tuple(sorted({0, *ahead, *_spaced(steps)}))
    _, losses = train(
        task, stacked_rows(networks_S, every), seeds.fold_in(keys_S, _RUN)[every], steps, decay_rates(start, power, steps / 4), moments
    )
    shape = (len(ahead), len(keys_S))
    found = zip(ahead, start.reshape(shape), power.reshape(shape), losses.reshape(-1, *shape).unbind(1), strict=True)
    return Offline(steps, moments, tuple(OfflineRow(*row) for row in found))


def _drawn(key: Tensor, count: int) -> Tensor:
    """Return log10 of start and power [C, 2]."""
    low, high = (torch.tensor(ends) for ends in zip(_LOG10_START, _LOG10_POWER, strict=True))
    return low + (high - low) * seeds.uniform(key, (count, 2))


def _spaced(steps: int, count: int = 30) -> list[int]:
    """Return about `count` numbers of steps, evenly spaced in their logarithm."""
    return [round(math.exp(x)) for x in torch.linspace(0.0, math.log(steps), count).tolist()]
