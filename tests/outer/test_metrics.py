"""Metric rows come back bit for bit, and a resumed file equals the undisturbed one whatever was cut."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.errors import CorruptCheckpointError
from metaopt.outer.metrics import MetricsWriter, read_metrics, read_rows


def row(step):
    return {"outer_step": step, "loss": 0.1 * step, "family": {"quadratic": 1 / (step + 1)}, "note": "x\ny é"}


def write(path, steps, rows=0):
    with MetricsWriter(path, rows) as writer:
        for step in steps:
            writer.append(row(step))
    return path.read_bytes()


def test_every_cut_resumes_to_the_undisturbed_bytes(tmp_path):
    whole = write(tmp_path / "whole", range(6))
    committed = len(write(tmp_path / "part", range(3)))
    for cut in range(committed, len(whole)):
        path = tmp_path / "cut"
        path.write_bytes(whole[:cut])
        assert read_rows(path) == [row(step) for step in range(whole[:cut].count(b"\n"))]
        assert write(path, range(3, 6), rows=3) == whole


def test_lost_rows_are_noticed(tmp_path):
    path = tmp_path / "metrics"
    whole = write(path, range(3))
    path.write_bytes(whole[:-1])
    with pytest.raises(CorruptCheckpointError, match="metrics has 2 whole rows, its checkpoint counted 3"):
        MetricsWriter(path, 3)
    assert path.read_bytes() == whole[:-1]


def test_commit_counts_and_a_fresh_writer_starts_over(tmp_path):
    path = tmp_path / "metrics"
    with MetricsWriter(path) as writer:
        assert writer.commit() == 0
        writer.append(row(0))
        assert read_rows(path) == [row(0)]
        assert writer.commit() == 1
    with MetricsWriter(path, 1) as writer:
        assert writer.rows == 1
    MetricsWriter(path).close()
    assert path.read_bytes() == b""


@given(st.lists(st.floats()))
def test_floats_come_back_bit_for_bit_from_strict_json(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("m") / "metrics"
    with MetricsWriter(path) as writer:
        for value in values:
            writer.append({"value": value})
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    for got, value in zip(read_rows(path), values, strict=True):
        assert (math.isnan(got["value"]) and math.isnan(value)) or struct.pack("d", got["value"]) == struct.pack("d", value)


def test_nonfinite_values_are_named(tmp_path):
    path = tmp_path / "metrics"
    with MetricsWriter(path) as writer:
        writer.append({"loss": math.nan, "lr": math.inf, "inner": {"a": [1.0, -math.inf]}})
        with pytest.raises(TypeError):
            writer.append({"loss": object()})
    assert json.loads(path.read_text()) == {
        "loss": None,
        "lr": None,
        "inner": {"a": [1.0, None]},
        "nonfinite": {"loss": "nan", "lr": "inf", "inner.a.1": "-inf"},
    }


def test_table(tmp_path):
    path = tmp_path / "metrics"
    with MetricsWriter(path) as writer:
        writer.append({"outer_step": 0, "loss": 1.5})
        writer.append({"outer_step": 1, "loss": math.inf})
    table = read_metrics(path)
    assert list(table.columns) == ["outer_step", "loss"]
    assert table["loss"].tolist() == [1.5, math.inf]


def test_outer_steps_and_validations_are_two_tables(tmp_path):
    path = tmp_path / "metrics"
    with MetricsWriter(path) as writer:
        writer.append({"step": 0, "validation": {"loss": 0.5, "templates": {"a/b": math.nan}}})
        writer.append({"step": 1, "loss": 1.5})
        writer.append({"step": 1, "validation": {"loss": math.nan, "templates": {}}})
    assert read_metrics(path)["step"].tolist() == [1]
    assert "validation" not in read_metrics(path).columns
    table = read_metrics(path, "validation")
    assert table["step"].tolist() == [0, 1]
    assert math.isnan(table["loss"].tolist()[1])
