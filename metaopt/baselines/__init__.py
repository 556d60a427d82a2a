"""Tuned runs of known optimizers, and the store of their curves."""

from metaopt.baselines.catalogue import SCHEDULE, TRIALS, Baseline, get, names
from metaopt.baselines.code_version import code_version
from metaopt.baselines.runs import Curves, Job, run_job
from metaopt.baselines.store import CurveKey, Store
from metaopt.baselines.tuning import (
    REFERENCE_HORIZONS,
    TUNING_SEEDS,
    Tuned,
    evaluation_key,
    evaluation_seeds,
    reference_keys,
    seed_blocks,
    tune,
    tuning_key,
)

__all__ = [
    "REFERENCE_HORIZONS",
    "SCHEDULE",
    "TRIALS",
    "TUNING_SEEDS",
    "Baseline",
    "CurveKey",
    "Curves",
    "Job",
    "Store",
    "Tuned",
    "code_version",
    "evaluation_key",
    "evaluation_seeds",
    "get",
    "names",
    "reference_keys",
    "run_job",
    "seed_blocks",
    "tune",
    "tuning_key",
]
