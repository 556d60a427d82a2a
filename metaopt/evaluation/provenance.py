"""Where a report comes from: versions, seeds and hashes, so that it can be repeated."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from metaopt import baselines as known
from metaopt.baselines import TRIALS
from metaopt.evaluation.candidates import Candidate
from metaopt.evaluation.suites import Suite
from metaopt.learners import Learner
from metaopt.tasks.number_shifts import is_shifted
from metaopt.version import __version__

__all__ = ["provenance", "rule_name"]


def provenance(
    suite: Suite, candidates: Sequence[Candidate], chosen: Sequence[known.Baseline], seeds: int, device: torch.device, threads: int
) -> dict[str, Any]:
    """Return versions, seeds and hashes; nothing that depends on the clock or on the number of workers."""
    plans = {task.name: task.spec for task in suite.tasks}
    families = {(spec.family, is_shifted(spec.values)) for spec in plans.values()}
    codes = {f"{family} (shifted)" if shifted else family: known.code_version(family, shifted) for family, shifted in families}
    return {
        "suite": suite.name,
        "axis": asdict(suite.axis) if suite.axis is not None else None,
        "tasks": {
            name: {"hash": spec.hash, "family": spec.family, "template": spec.template, "horizon": spec.horizon}
            for name, spec in sorted(plans.items())
        },
        "learners": _learners(candidates),
        "baselines": {
            one.name: {"rule": one.rule, "schedule": one.schedule, "trials": [str(trial) for trial in one.trials(max(TRIALS))]}
            for one in chosen
        },
        "seeds": seeds,
        "tuning_seeds": known.TUNING_SEEDS,
        "device": device.type,
        "threads": threads,
        "baseline_code": dict(sorted(codes.items())),
        "versions": {
            "metaopt": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def rule_name(learner: Learner) -> str:
    """Return what a learner is called: its own name, that of its rule, or that of its class."""
    rule = getattr(learner, "rule", None)
    return str(getattr(learner, "name", getattr(rule, "name", type(learner).__name__)))


def _learners(candidates: Sequence[Candidate]) -> dict[str, dict[str, Any]]:
    """Return each learner's kind, rule and, of what was meta-trained, the log of its training; one hash a meta-seed."""
    found: dict[str, dict[str, Any]] = {}
    for one in candidates:
        row = found.setdefault(one.name, {"kind": one.kind, "rule": rule_name(one.learner), "hashes": []})
        row["hashes"].append(one.hash)
        if one.card is not None:
            training = one.card["training"]
            row.setdefault("config_hashes", []).append(training.get("config_hash", ""))
            row.setdefault("outer_steps", []).append(training.get("outer_steps", 0))
            row.setdefault("device_hours", []).append(training.get("device_hours", 0.0))
    return found
