"""What a reader must know to believe and repeat a report: notes on the results, and where they come from."""

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from metaopt import baselines as known
from metaopt.baselines import TRIALS, Tuned
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.suites import Suite
from metaopt.version import __version__

__all__ = ["notes", "provenance"]


def notes(scores: pd.DataFrame, tuned: dict[str, list[Tuned]], candidates: Sequence[Candidate], plan: Suite) -> list[str]:
    """Return grid edges that tuning hit, the contamination check, and what failed why."""
    found = []
    edges = [
        f"{one.baseline.name} on {task}"
        for task, group in tuned.items()
        for one in group
        if one.trials[max(TRIALS)].rate in _ends([trial.rate for trial in one.baseline.trials(max(TRIALS))])
    ]
    if edges:
        found.append(f"best rate at an end of those tried (a wider range might do better): {', '.join(edges)}")
    hashes = {spec.hash for spec in plan.specs.values()}
    for candidate in candidates:
        if candidate.card is None:
            continue
        shared = hashes & set(candidate.card["training"]["task_hashes"])
        seen = (
            f"{len(shared)} of the suite's tasks were in its meta-training"
            if shared
            else "no task of the suite is in its meta-training log"
        )
        found.append(f"{candidate.name}: {seen}")
    for learner, rows in scores[scores.failed].groupby("learner", sort=True):
        reasons = ", ".join(f"{task} ({reason})" for (task, reason), _ in rows.groupby(["task", "reason"], sort=True))
        found.append(f"failures of {learner}: {reasons}")
    return found


def provenance(
    plan: Suite, candidates: Sequence[Candidate], chosen: Sequence[known.Baseline], seeds: int, device: torch.device, threads: int
) -> dict[str, Any]:
    """Return versions, seeds and hashes; nothing that depends on the clock or on the number of workers."""
    return {
        "suite": plan.name,
        "tasks": {
            name: {"hash": spec.hash, "family": spec.family, "template": spec.template, "horizon": spec.horizon}
            for name, spec in plan.specs.items()
        },
        "learners": {
            c.name: {"hash": c.hash, "rule": getattr(getattr(c.learner, "rule", c.learner), "name", type(c.learner).__name__)}
            for c in candidates
        },
        "baselines": {
            b.name: {"rule": b.rule, "schedule": b.schedule, "trials": [str(trial) for trial in b.trials(max(TRIALS))]} for b in chosen
        },
        "seeds": seeds,
        "tuning_seeds": known.TUNING_SEEDS,
        "meta_seeds": 1,
        "device": device.type,
        "threads": threads,
        "baseline_code": {family: known.code_version(family) for family in sorted({spec.family for spec in plan.specs.values()})},
        "versions": {
            "metaopt": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def _ends(rates: Sequence[float]) -> tuple[float, float]:
    return min(rates), max(rates)
