"""The comparison at equal compute: its counts, its errors and its page, on a subject small enough to be exact about."""

import dataclasses

import pytest

from metaopt.estimators import ESTIMATORS, study
from metaopt.estimators.study import Row
from tests.estimators.test_evolution import exact_derivative
from tests.oracles.influence_balancing import TRUTH


@pytest.fixture(scope="module")
def small() -> study.Subject:
    return study.balancing(groups=6, pairs=20)


def test_the_system_is_the_oracle_s(small: study.Subject) -> None:
    assert float(study.exact(small)) == pytest.approx(TRUTH, abs=5e-4)
    assert float(study.exact(small)) == pytest.approx(exact_derivative(100), rel=1e-12)


def test_every_estimator_is_compared(small: study.Subject) -> None:
    for subject in (small, study.digits()):
        assert {label.split()[0] for label in subject.estimators} == set(ESTIMATORS)
    assert small.recipe("gpes reuse 50").reuse_steps == 50
    assert small.recipe("nres").sigma == 0.1
    assert small.recipe("forward_mode tangents 1").tangents == 1


@pytest.mark.parametrize(
    ("label", "total", "sequential", "waits"),
    [
        # 40 runs of 100 steps; a derivative in theta adds nothing to a product with a constant matrix but its transpose.
        ("nres", 4000, 10, 10),
        ("full_es", 4000, 100, 100),
        ("truncated_backprop", 3800, 19, 10),  # the first of a window's ten states has no past to go back to
        ("full_backprop", 6000, 300, 100),  # forward, forward again, backward
        ("forward_mode", 6000, 30, 10),
    ],
)
def test_compute_is_counted(label: str, total: float, sequential: float, waits: int, small: study.Subject) -> None:
    row = study.measure(label, small, study.exact(small))
    assert (row.total, row.sequential, row.waits) == (pytest.approx(total, rel=0.03), pytest.approx(sequential, rel=0.03), waits)


def test_bias_and_noise(small: study.Subject) -> None:
    truth = study.exact(small)
    cut = study.measure("truncated_backprop", small, truth)
    assert cut.bias == pytest.approx(1.05, abs=0.01)  # -1.78 in place of 35.7
    assert (cut.noise, cut.bias_high) == (0.0, cut.bias)
    sampled = study.measure("nres", small, truth)
    assert 0.1 < sampled.noise < 1.0  # sqrt(2.6e3 / 20) / 35.7 is 0.32
    assert sampled.bias < sampled.noise
    assert sampled == study.measure("nres", small, truth)


def row(**changes: float) -> Row:
    return dataclasses.replace(Row("nres", 0.0, 0.1, 0.5, 1000.0, 10.0, 10), **changes)


def test_the_error_falls_with_the_root_of_compute_down_to_the_bias() -> None:
    assert study.error_at(row(), 1000.0) == 0.5
    assert study.error_at(row(), 100_000.0) == pytest.approx(0.05)
    assert study.error_at(row(bias=0.3, bias_high=0.4), 1e12) == pytest.approx(0.3)
    assert study.error_at(row(bias=0.01, bias_high=0.4), 1e12) < 1e-3  # not resolved


def test_the_table_and_the_figure(small: study.Subject) -> None:
    rows = [row(), row(label="full_backprop", noise=0.0, bias_high=0.0), row(label="truncated_es", bias=1.0, bias_high=1.1)]
    lines = study.table(rows, 1e5).splitlines()
    assert len(lines) == 5
    assert lines[2] == "| `nres` | 0 (0.1) | 0.5 | 1,000 | 10 | 0.05 |"
    image = study.figure([(small, rows), (small, rows[:1])], 1e5)
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert image == study.figure([(small, rows), (small, rows[:1])], 1e5)


@pytest.mark.slow
def test_stability_is_told_by_the_slope() -> None:
    lines = study.stability(rates=(1e-3,), groups=2).splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert float(cells[2]) == pytest.approx(float(cells[3]), rel=0.1)  # stable: the exact derivative is the slope
    assert abs(float(cells[4])) < 0.5 * abs(float(cells[3]))  # and a window of ten steps sees little of it
