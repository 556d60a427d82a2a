"""Tune baselines on seeds that evaluation never sees, and say which curves an evaluation needs.

Three rounds of curves a task, each a `CurveKey` that the store may hold already:
tuning (every rate of the grid, tuning seeds), evaluation (the rates that K = 1, 5 and 15 trials chose, evaluation seeds), and the
reference (the best scheduled configuration over all baselines, with its schedule stretched over 2 and 4 times the horizon).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from metaopt.baselines.catalogue import TRIALS, Baseline
from metaopt.baselines.runs import Curves
from metaopt.baselines.store import CurveKey
from metaopt.seeds import stable_hash
from metaopt.tasks import TaskSpec

__all__ = ["REFERENCE_HORIZONS", "Tuned", "evaluation_key", "evaluation_seeds", "reference_keys", "seed_blocks", "tune", "tuning_key"]

TUNING_SEEDS = 3
SEED_BLOCK = 5  # stored curves come in blocks of so many seeds, so that asking for fewer reads the same file
REFERENCE_HORIZONS = (1, 2, 4)  # the last one is where speed-ups are censored


@dataclass(frozen=True)
class Tuned:
    """What tuning one baseline on one task found.

    Attributes:
        rates: number of trials K -> the best of the rates that K trials try.
        loss: mean final held-out loss of the best rate of all over the tuning seeds; a diverged run counts with the task's cap.
    """

    baseline: Baseline
    rates: Mapping[int, float]
    loss: float


def evaluation_seeds(spec: TaskSpec, start: int, stop: int) -> tuple[int, ...]:
    """Return the inner seeds `start` to `stop` of a task: the same for every learner and baseline, so that they compare in pairs."""
    return tuple(stable_hash("eval", spec.hash, k) for k in range(start, stop))


def seed_blocks(count: int) -> range:
    """Return the blocks of stored seeds that hold the first `count`."""
    return range(-(-count // SEED_BLOCK))


def tuning_key(spec: TaskSpec, baseline: Baseline) -> CurveKey:
    """Return the key of a baseline's whole rate grid on the tuning seeds of a task."""
    return CurveKey(spec, baseline, baseline.rates(max(TRIALS)), tuple(stable_hash("tune", spec.hash, k) for k in range(TUNING_SEEDS)))


def tune(key: CurveKey, curves: Curves, cap: float) -> Tuned:
    """Return the best rate for every number of trials, from the curves of `tuning_key`; ties go to the smaller rate."""
    losses = {rate: _final_loss(key.at(curves, rate), cap) for rate in key.rates}
    rates = {trials: min(key.baseline.rates(trials), key=losses.__getitem__) for trials in TRIALS}
    return Tuned(key.baseline, rates, losses[rates[max(TRIALS)]])


def evaluation_key(spec: TaskSpec, tuned: Tuned, block: int) -> CurveKey:
    """Return the key of a baseline's chosen rates on one block of evaluation seeds."""
    seeds = evaluation_seeds(spec, block * SEED_BLOCK, (block + 1) * SEED_BLOCK)
    return CurveKey(spec, tuned.baseline, tuple(sorted(set(tuned.rates.values()))), seeds)


def reference_keys(spec: TaskSpec, tuned: Sequence[Tuned], block: int) -> tuple[CurveKey, ...]:
    """Return the keys of the best scheduled configuration, one for each longer horizon; its own horizon is in `evaluation_key`."""
    best = min(tuned, key=lambda one: (one.loss, one.baseline.name))
    seeds = evaluation_seeds(spec, block * SEED_BLOCK, (block + 1) * SEED_BLOCK)
    return tuple(
        CurveKey(replace(spec, horizon=factor * spec.horizon), best.baseline, (best.rates[max(TRIALS)],), seeds)
        for factor in REFERENCE_HORIZONS[1:]
    )


def _final_loss(curves: Curves, cap: float) -> float:
    return float(np.mean(np.where(curves.diverged, cap, curves.heldout[-1])))
