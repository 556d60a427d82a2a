"""What remains of a policy without feedback: its mean changes, or its mean rate, as a function of the share of decisions made.

All runs begin at the same knobs, so the mean of relative changes is the geometric mean of the values; the mean rate is the arithmetic one,
which large rates dominate.

Legend: T decisions, E runs, K = 8 knobs, G points of a grid over the decisions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaopt.evaluation.policies.loop import Play
from metaopt.learners.policies.knobs import KNOB_SPECS, KNOBS, change_features

__all__ = ["mean_changes", "mean_rates", "replayed"]

GRID = 256  # points in [0, 1), on which the decisions of a run fall where there are 2, 4, 8, .. of them

Array = NDArray[np.float64]


def mean_changes(plays: Sequence[Play]) -> Array:
    """Return the mean over runs of each knob's log change since the start (shift of log odds of the clipping ratio) [G, K].

    Decisions of a run are put at t / T, the same for runs of any number of decisions, and joined linearly.
    """
    return _mean([_changes(one) for one in plays])


def mean_rates(plays: Sequence[Play]) -> Array:
    """Return the mean over runs of the learning rate after a decision [G]; decisions as in `mean_changes`."""
    return _mean([one.values[:, :, :1].numpy() for one in plays])[:, 0]


def replayed(changes: Array, start: Tensor, decisions: int, rates: Array | None = None) -> Tensor:
    """Return the knobs after each of some decisions [T, 1, K] that mean changes lead to from a start [K].

    Args:
        changes: of `mean_changes`.
        start: [K].
        decisions: T.
        rates: of `mean_rates`, which then stand in for the changes of the rate.
    """
    at = np.arange(decisions) / decisions
    change = torch.from_numpy(np.stack([np.interp(at, _points(), column) for column in changes.T], axis=1))
    factor = change.exp()
    logit = torch.tensor([knob.logit for knob in KNOB_SPECS])
    odds = start / (1 - start) * factor
    values = torch.where(logit, odds / (1 + odds), start * factor)
    if rates is not None:
        values[:, KNOBS.index("lr")] = torch.from_numpy(np.interp(at, _points(), rates))
    return values.unsqueeze(1)


def _changes(one: Play) -> Array:
    every = torch.ones(one.values.shape, dtype=torch.bool)
    return change_features(one.values, one.start.expand(one.values.shape), every).numpy()


def _points() -> Array:
    return np.arange(GRID) / GRID


def _mean(curves: Sequence[Array]) -> Array:
    """Return the mean [G, C] over runs of curves [T, E, C] that may differ in T and E."""
    total, runs = 0.0, 0
    for curve in curves:
        decisions, count, columns = curve.shape
        at = np.arange(decisions) / decisions
        flat = curve.reshape(decisions, -1)
        onto = np.stack([np.interp(_points(), at, column) for column in flat.T], axis=1)
        total, runs = total + onto.reshape(GRID, count, columns).sum(axis=1), runs + count
    return np.asarray(total / runs)
