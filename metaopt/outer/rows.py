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
    clipped = sum(e.clipped_frac for e in estimates.values()) / max(1, len(estimates))
    made = {"inner_steps": sum(e.inner_steps for e in estimates.values())}
    made["sequential_steps"] = max((e.sequential_steps for e in estimates.values()), default=0)
    return {"step": step, **step_losses(estimates, families), **numbers, "estimator_clipped_frac": clipped, **wrong, **counts, **made}


def validation_row(
    step: int, measured: Mapping[str, Measured], kinds: Sequence[str], numbers: Mapping[str, Any], given_up: int
) -> dict[str, Any]:
    """Return the row of a validation after `step` outer steps.

    Args:
        measured: by template.
        kinds: what was measured, `last` and `average`, in order.
        numbers: what the selection said; its `kind` is the one that the row's losses by template are of.
        given_up: templates that are not measured any more.
    """
    row: dict[str, Any] = {}
    for k, kind in enumerate(kinds):
        row[f"{kind}_loss"], row[f"{kind}_loss_se"] = paired({name: value.loss[k] for name, value in measured.items()})
        row[f"{kind}_diverged"] = sum(value.diverged[k] for value in measured.values())
    row["templates"] = {name: float(measured[name].loss[kinds.index(numbers["kind"])].mean()) for name in sorted(measured)}
    return {
        "step": step,
        "validation": {**numbers, **row, "given_up": given_up, "inner_steps": sum(m.inner_steps for m in measured.values())},
    }
