"""Plots are written from metrics alone, gaps included."""

import math
from pathlib import Path

import pytest

from metaopt.outer.ppo.plots import plot_policy_run

PNG = b"\x89PNG\r\n\x1a\n"


def rows(count: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for i in range(count):
        families = {"quadratic": -1.0 + i / 40} | ({"digits_mlp": -0.5} if i % 3 else {})
        row: dict[str, object] = {"step": i + 1, "reward": -1.0 + i / 50, "families": families, "stage": i // 10}
        if i != 4:  # a step that was skipped has no update
            row |= {"kl": 0.01, "clip_fraction": 0.1, "explained_variance": i / 30, "entropy": 3.0, "entropy_lr": 1.9}
        found.append(row)
    found[-1]["reward"] = math.nan
    return found


@pytest.mark.parametrize("count", [1, 30])
def test_a_run_has_three_plots(tmp_path: Path, count: int) -> None:
    paths = plot_policy_run(rows(count), tmp_path / "plots")  # type: ignore[arg-type]
    assert [path.name for path in paths] == ["reward.png", "entropy.png", "update.png"]
    assert all(path.read_bytes().startswith(PNG) for path in paths)


def test_a_run_without_any_update_has_them_too(tmp_path: Path) -> None:
    skipped = [{"step": 1, "reward": math.nan, "families": {}, "stage": 0}]
    assert len(plot_policy_run(skipped, tmp_path / "plots")) == 3  # type: ignore[arg-type]
