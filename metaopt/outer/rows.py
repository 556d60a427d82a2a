"""What the rows of metrics say about an outer step and about a validation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metaopt.estimators import MetaGradient
from metaopt.outer.validation import Measured, paired

__all__ = ["step_losses", "step_row", "validation_row"]


def step_losses(estimates: Mapping[int, MetaGradient], families: Sequence[str]) -> dict[str, Any]:
    """Return the mean loss over shards, its standard error over pairs, and the mean by family; `families` has that of each shard."""
    if not estimates:
        return {"loss": math.nan, "loss_se": math.nan, "families": {}}
    by_family: dict[str, list[float]] = {}
    for shard, estimate in estimates.items():
        by_family.setdefault(families[shard], []).append(estimate.loss)
    count = len(estimates)
    se = math.sqrt(sum(e.loss_se**2 for e in estimates.values())) / count
    means = {name: sum(values) / len(values) for name, values in by_family.items()}
    return {"loss": sum(e.loss for e in estimates.values()) / count, "loss_se": se, "families": means}


def step_row(
    step: int, estimates: Mapping[int, MetaGradient], families: Sequence[str], numbers: Mapping[str, float], **counts: int
) -> dict[str, Any]:
    """Return the row of the `step`-th outer step: losses, the numbers of the update, what went wrong, and the caller's counts."""
    wrong = {"nonfinite_rows": sum(e.nonfinite for e in estimates.values()), "diverged": sum(e.diverged for e in estimates.values())}
    made = {"inner_steps": sum(e.inner_steps for e in estimates.values())}
    made["sequential_steps"] = max((e.sequential_steps for e in estimates.values()), default=0)
    return {"step": step, **step_losses(estimates, families), **numbers, **wrong, **counts, **made}


def validation_row(step: int, measured: Mapping[str, Measured], numbers: Mapping[str, Any], given_up: int) -> dict[str, Any]:
    """Return the row of a validation after `step` outer steps.

    Args:
        measured: by template; of the candidate, and then of the last theta where the candidate is the average.
        numbers: what the selection said.
        given_up: templates that are not measured any more.
    """
    values = [measured[name] for name in sorted(measured)]
    row = {"templates": {name: float(measured[name].loss[0].mean()) for name in sorted(measured)}}
    if values and len(values[0].loss) > 1:
        raw, raw_se = paired({name: value.loss[1] for name, value in measured.items()})
        numbers = {**numbers, "raw_loss": raw, "raw_loss_se": raw_se}
    counts = {"diverged": sum(value.diverged[0] for value in values), "inner_steps": sum(value.inner_steps for value in values)}
    return {"step": step, "validation": {**numbers, **row, **counts, "given_up": given_up}}
