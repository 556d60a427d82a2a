"""Plots are written from metrics alone, gaps included."""

import math
from pathlib import Path

import pytest

from metaopt.outer.plots import _borders, plot_run, smoothed

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
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0] * 3)
    assert smoothed([1.0, math.nan, 3.0]) == pytest.approx([1.0, 1.0, (0.95 * 1.0 + 3.0) / 1.95])
    assert math.isnan(smoothed([math.nan, 1.0])[0])
    assert smoothed([math.inf, 1.0])[1] == pytest.approx(1.0)


def test_validations_get_a_plot_of_their_own(tmp_path: Path) -> None:
    def validation(step: int, loss: float, **more: object) -> dict[str, object]:
        return {"step": step, "validation": {"loss": loss, "change_se": 0.01, "last_loss": loss, "best_step": 0 if step < 2 else 2, **more}}

    steps = [row(i, quadratic=0.5) | {"phase": i // 3, "stage": i // 2} for i in range(1, 5)]
    rows = [validation(0, 0.5), *steps[:2], validation(2, 0.3), *steps[2:], validation(4, math.nan)]
    paths = plot_run(rows, tmp_path / "plots")
    assert [path.name for path in paths] == ["meta_loss.png", "outer_optimizer.png", "validation.png"]
    assert all(path.read_bytes().startswith(PNG) and path.stat().st_size > 5000 for path in paths)
    with_average = [validation(0, 0.5, average_loss=0.5), *steps, validation(4, 0.4, average_loss=0.6)]
    assert len(plot_run(with_average, tmp_path / "plots")) == 3


def test_borders_are_drawn_once_each() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    _borders(axes, [{"step": i, "phase": i // 4, "stage": i // 2} for i in range(8)])
    at = [(line.get_xdata()[0], line.get_linestyle()) for line in axes.lines]
    assert at == [(3.5, "-"), (1.5, ":"), (3.5, ":"), (5.5, ":")]
    _borders(axes, [{"step": i} for i in range(8)])
    assert len(axes.lines) == 4
