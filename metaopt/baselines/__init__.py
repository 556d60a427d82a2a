"""Tuned runs of known optimizers, and the store of their curves."""

from metaopt.baselines.best_of_k import expected_best, expected_best_of_k
from metaopt.baselines.catalogue import DEFAULT, MOST_TRIALS, SCHEDULE, TRIALS, Baseline, get, names, variants
from metaopt.baselines.code_version import code_version
from metaopt.baselines.runs import Curves, Job, run_job
from metaopt.baselines.space import Axis, Trial
from metaopt.baselines.store import CurveKey, Store
from metaopt.baselines.tuning import (
    REFERENCE_HORIZONS,
    TUNING_SEEDS,
    Tuned,
    envelope_key,
    evaluation_key,
    evaluation_seeds,
    recorded_keys,
    reference_keys,
    seed_blocks,
    tune,
    tuning_keys,
)

__all__ = [
    "DEFAULT",
    "MOST_TRIALS",
    "REFERENCE_HORIZONS",
    "SCHEDULE",
    "TRIALS",
    "TUNING_SEEDS",
    "Axis",
    "Baseline",
    "CurveKey",
    "Curves",
    "Job",
    "Store",
    "Trial",
    "Tuned",
    "code_version",
    "envelope_key",
    "evaluation_key",
    "evaluation_seeds",
    "expected_best",
    "expected_best_of_k",
    "get",
    "names",
    "recorded_keys",
    "reference_keys",
    "run_job",
    "seed_blocks",
    "tune",
    "tuning_keys",
    "variants",
]
