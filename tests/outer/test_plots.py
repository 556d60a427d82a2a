"""Plots are written from metrics alone, gaps included."""

import math
from pathlib import Path

import pytest

from metaopt.outer.plots import _smoothed, plot_run

PNG = b"\x89PNG\r\n\x1a\n"


def row(step: int, **families: float) -> dict[str, object]:
    return {"step": step, "families": families, "grad_norm": 1.0 / step, "lr": 1e-3}


def test_two_images_are_written(tmp_path: Path) -> None:
    rows = [row(1, quadratic=0.5), row(2, digits_mlp=0.9), row(3), row(4, quadratic=math.nan, digits_mlp=0.8)]
    paths = plot_run(rows, tmp_path / "plots")
    assert [path.name for path in paths] == ["meta_loss.png", "outer_optimizer.png"]
    assert all(path.read_bytes().startswith(PNG) and path.stat().st_size > 5000 for path in paths)
    assert plot_run(rows, tmp_path / "plots") == paths  # again, over the old ones


def test_moving_average_is_bias_corrected_and_bridges_gaps() -> None:
    assert _smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0] * 3)
    assert _smoothed([1.0, math.nan, 3.0]) == pytest.approx([1.0, 1.0, (0.95 * 1.0 + 3.0) / 1.95])
    assert math.isnan(_smoothed([math.nan, 1.0])[0])
    assert _smoothed([math.inf, 1.0])[1] == pytest.approx(1.0)
