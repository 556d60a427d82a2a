"""What an evaluation of a policy found: tables, and the same as JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["PolicyEvaluation", "plain"]

_LONG = ("runs", "equal", "trajectories")  # one row a run or a decision: files of their own


@dataclass(frozen=True, eq=False)
class PolicyEvaluation:
    """Tables of an evaluation; see `summary` and `rows` for their columns.

    Attributes:
        about: artifact, seeds, decisions, what the policy saw and was kept from; plain JSON values.
        rejected: set -> baseline -> how many tasks could not be scored against it, by reason.
        rewards: mean rewards of the policy, its variants and the tuned baselines, and how often the policy ends lower.
        comparison: the policy beside the grid.
        factors: steps to equal loss.
        grid: mean reward of each run of the grid.
        runs: a row a run.
        equal: a row for each budget that a baseline needs.
        trajectories: the policy's rates, a row a decision.
    """

    about: Mapping[str, Any]
    rejected: Mapping[str, Mapping[str, Mapping[str, int]]]
    rewards: pd.DataFrame
    comparison: pd.DataFrame
    factors: pd.DataFrame
    grid: pd.DataFrame
    runs: pd.DataFrame
    equal: pd.DataFrame
    trajectories: pd.DataFrame

    def to_json(self) -> str:
        """Return everything but the long tables as canonical JSON; what is not finite is null."""
        content: dict[str, Any] = {"about": dict(self.about), "rejected": dict(self.rejected)}
        for one in fields(self):
            table = getattr(self, one.name)
            if isinstance(table, pd.DataFrame) and one.name not in _LONG:
                content[one.name] = table.to_dict("records")
        return json.dumps(plain(content), indent=1, allow_nan=False) + "\n"

    def save(self, folder: Path) -> list[Path]:
        """Write `results.json` and a CSV file for each long table; returns what was written."""
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "results.json", *(folder / f"{name}.csv" for name in _LONG)]
        written[0].write_text(self.to_json())
        for path, name in zip(written[1:], _LONG, strict=True):
            getattr(self, name).to_csv(path, index=False)
        return written


def plain(value: Any) -> Any:
    """Return nested values as JSON knows them: numbers of numpy as Python's, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
