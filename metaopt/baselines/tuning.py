"""Tune baselines on seeds that evaluation never sees, and say which curves an evaluation needs.

Rounds of curves a task, each a `CurveKey` that the store may hold already:
tuning (every trial of the search, tuning seeds), evaluation (the trials that K = 1, 5 and 15 chose, evaluation seeds), the reference (the
best scheduled configuration over all baselines, with its schedule stretched over 2 and 4 times the horizon), and the envelope (Adam at
constant rates, as long as the longest reference, on tuning seeds).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from metaopt.baselines.catalogue import MOST_TRIALS, TRIALS, Baseline, get
from metaopt.baselines.runs import Curves
from metaopt.baselines.space import Trial
from metaopt.baselines.store import CurveKey, Store
from metaopt.errors import ConfigError
from metaopt.seeds import stable_hash
from metaopt.tasks import TaskSpec

__all__ = [
    "REFERENCE_HORIZONS",
    "TUNING_SEEDS",
    "Tuned",
    "envelope_key",
    "evaluation_key",
    "evaluation_seeds",
    "recorded_keys",
    "reference_keys",
    "seed_blocks",
    "tune",
    "tuning_keys",
]

TUNING_SEEDS = 3
SEED_BLOCK = 5  # stored curves come in blocks of so many seeds, so that asking for fewer reads the same file
REFERENCE_HORIZONS = (1, 2, 4)  # the last one is where speed-ups are censored
ENVELOPE_SEEDS = 5
_LARGEST_BLOCK = 30  # trials of one program beyond the first 15


@dataclass(frozen=True)
class Tuned:
    """What tuning one baseline on one task found.

    Attributes:
        trials: number of trials K of a report -> the best of the first K.
        loss: mean final held-out loss of the best trial of the largest K over the tuning seeds; a diverged run counts with the task's cap.
        finals: the same of every recorded trial, in order, those beyond the largest K included; see `expected_best_of_k`.
    """

    baseline: Baseline
    trials: Mapping[int, Trial]
    loss: float
    finals: tuple[float, ...] = ()


def evaluation_seeds(spec: TaskSpec, start: int, stop: int) -> tuple[int, ...]:
    """Return the inner seeds `start` to `stop` of a task: the same for every learner and baseline, so that they compare in pairs."""
    return tuple(stable_hash("eval", spec.hash, k) for k in range(start, stop))


def seed_blocks(count: int) -> range:
    """Return the blocks of stored seeds that hold the first `count`."""
    return range(-(-count // SEED_BLOCK))


def tuning_keys(spec: TaskSpec, baseline: Baseline, trials: int = max(TRIALS)) -> tuple[CurveKey, ...]:
    """Return the keys of a baseline's first `trials` trials on the tuning seeds of a task.

    Budgets up to 15 share one key, and so one program; larger ones have further keys of at most 30 trials.

    Raises:
        ConfigError: trials out of [1, MOST_TRIALS].
    """
    if not 1 <= trials <= MOST_TRIALS:
        raise ConfigError(f"trials must be in [1, {MOST_TRIALS}], got {trials}")
    first, seeds = max(TRIALS), tuple(stable_hash("tune", spec.hash, k) for k in range(TUNING_SEEDS))
    ends = [first, *range(first + _LARGEST_BLOCK, MOST_TRIALS, _LARGEST_BLOCK), MOST_TRIALS]
    needed = [end for start, end in zip([0, *ends], ends, strict=False) if start < trials]
    design = baseline.trials(needed[-1])
    return tuple(
        CurveKey(spec, baseline, design[start:end], seeds, keep="finals") for start, end in zip([0, *needed], needed, strict=False)
    )


def recorded_keys(spec: TaskSpec, baseline: Baseline, store: Store) -> tuple[CurveKey, ...]:
    """Return the keys of all MOST_TRIALS trials where a store has them all, else those of the largest budget of a report."""
    every = tuning_keys(spec, baseline, MOST_TRIALS)
    return every if all(store.get(key) is not None for key in every) else tuning_keys(spec, baseline)


def tune(keys: Sequence[CurveKey], curves: Mapping[CurveKey, Curves], cap: float) -> Tuned:
    """Return the best trial for every budget of a report, from the curves of `tuning_keys`; ties go to the earlier trial.

    Trials beyond the largest budget are in `finals` only: whether they were recorded changes no choice, no reference and no score.
    """
    losses = {trial: _final_loss(key.at(curves[key], trial), cap) for key in keys for trial in key.trials}
    order = list(losses)
    best = {count: min(order[:count], key=losses.__getitem__) for count in TRIALS}
    return Tuned(keys[0].baseline, best, losses[best[max(TRIALS)]], tuple(losses.values()))


def evaluation_key(spec: TaskSpec, tuned: Tuned, block: int) -> CurveKey:
    """Return the key of a baseline's chosen trials on one block of evaluation seeds."""
    seeds = evaluation_seeds(spec, block * SEED_BLOCK, (block + 1) * SEED_BLOCK)
    return CurveKey(spec, tuned.baseline, tuple(sorted(set(tuned.trials.values()))), seeds)


def reference_keys(spec: TaskSpec, tuned: Sequence[Tuned], block: int) -> tuple[CurveKey, ...]:
    """Return the keys of the best scheduled configuration, one for each longer horizon; its own horizon is in `evaluation_key`."""
    best = min(tuned, key=lambda one: (one.loss, one.baseline.name))
    seeds = evaluation_seeds(spec, block * SEED_BLOCK, (block + 1) * SEED_BLOCK)
    return tuple(
        CurveKey(replace(spec, horizon=factor * spec.horizon), best.baseline, (best.trials[max(best.trials)],), seeds)
        for factor in REFERENCE_HORIZONS[1:]
    )


def envelope_key(spec: TaskSpec, optimizer: str = "adam") -> CurveKey:
    """Return the key of an optimizer's constant rates, for the envelope that the literature measures speed-ups against.

    Fifteen rates, five seeds that evaluation does not use, four times the horizon. `CurveKey.by_trial` gives its curves by rate.
    """
    seeds = tuple(stable_hash("tune", spec.hash, k) for k in range(ENVELOPE_SEEDS))
    baseline = get(f"{optimizer}+constant")
    longest = replace(spec, horizon=max(REFERENCE_HORIZONS) * spec.horizon)
    return CurveKey(longest, baseline, baseline.rate_trials(), seeds, keep="heldout")


def _final_loss(curves: Curves, cap: float) -> float:
    return float(np.mean(np.where(curves.diverged, cap, curves.heldout[-1])))
