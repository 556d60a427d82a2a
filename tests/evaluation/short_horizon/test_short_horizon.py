"""Tables, JSON and figures of the laboratory, and the script that prints them."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from metaopt.estimators.short_horizon import Offline, OfflineRow, Online, OnlineRun
from metaopt.evaluation.short_horizon import as_json, bias_figure, horizon_figure, network_figure, network_table, rules_table, spectra_table
from metaopt.tasks.oracles.horizon_bias import SpectrumRow

ROOT = Path(__file__).parents[3]
TABLE = {
    "greedy": 0.083081,
    "plan 2 steps": 0.079588,
    "plan 5 steps": 0.067949,
    "plan 10 steps": 0.050402,
    "plan 25 steps": 0.028927,
    "plan 50 steps": 0.016823,
    "plan 100 steps": 0.012603,
    "optimal (250)": 0.0101288,
    "best constant 0.525": 0.043782,
}


AHEAD = (5, 10, 20, 40)
LOSSES = torch.tensor([[2.0, 2.0], [1.0, 1.2], [0.9, 0.9], [0.8, 0.8], [0.5, 0.6]])
OFFLINE = Offline(40, (0, *AHEAD), tuple(OfflineRow(k, torch.tensor([0.1, 0.1]), torch.tensor([2.0, 8.0]), LOSSES) for k in AHEAD))
NAMES = ("stochastic", "deterministic", "hand-set")
RATES = torch.tensor([[0.01, 0.01], [0.001, 0.001]])
ONLINE = Online((0, 40), tuple(OnlineRun(name, RATES, torch.full((2, 2), 0.9), LOSSES[[0, 4]]) for name in NAMES), 3)


def test_the_script_writes_the_numbers_of_the_table_and_the_figures(tmp_path, monkeypatch, capsys):
    where = {"--json": tmp_path / "new" / "all.json", "--figures": tmp_path}
    monkeypatch.setattr(sys, "argv", ["short_horizon_bias.py", "--quick", *(str(word) for pair in where.items() for word in pair)])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / "scripts" / "short_horizon_bias.py"), run_name="__main__")
    numbers = json.loads(where["--json"].read_text())
    finals = {row["rule"]: row["final"] for row in numbers["nqm_100"]}
    assert {name: finals[name] for name in TABLE} == pytest.approx(TABLE, abs=1e-6)
    printed = capsys.readouterr().out
    assert "7.411847 before" in printed
    assert max(map(len, printed.splitlines())) <= 80
    drawn = {f"short-horizon-{name}.{ending}" for name in ("rules", "horizon") for ending in ("png", "svg")}
    assert {path.name for path in tmp_path.glob("short-horizon-*")} == drawn


def test_a_table_of_rules_has_their_losses(found):
    text = rules_table(found)
    assert text.count("\n") == len(found) + 1
    printed = {line[:41].strip(): float(line[41:52]) for line in text.splitlines()[2:]}
    assert {name: printed[name] for name in TABLE} == pytest.approx(TABLE, abs=1e-6)
    assert max(map(len, text.splitlines())) <= 80


def test_a_table_of_spectra():
    text = spectra_table([SpectrumRow("1/i", 10, 0.91534, 0.48712, 0.28881, 1.025)])
    assert text.splitlines()[-1].split() == ["1/i", "10", "0.9153", "0.4871", "(1.025)", "0.2888"]


def test_a_table_of_networks_has_means_with_intervals():
    lines = network_table(OFFLINE, ONLINE).splitlines()
    assert lines[2].split() == ["5", "0.1000", "4.000", "1.100", "[-0.171", "2.371]", "0.550", "[-0.085", "1.185]"]
    assert lines[5].split()[:3] == ["40", "0.1000", "4.000"]
    assert "0.550 [-0.085 1.185]" in lines[5], "two seeds: 12.7 standard errors either way"
    assert lines[-3].split()[:4] == ["stochastic", "0.00100", "0.1", "0.900"]
    assert max(map(len, lines)) <= 80


def test_json_has_everything_that_was_computed(found):
    assert set(as_json(found)) == {"nqm_100"}
    everything = json.loads(json.dumps(as_json(found, [SpectrumRow("1/i", 10, 0.9, 0.5, 0.3, 1.0)], OFFLINE, ONLINE)))
    assert everything["spectra"][0]["greedy"] == 0.9
    assert everything["offline"]["rows"][3]["losses"][4] == pytest.approx([0.5, 0.6])
    assert everything["online"]["skipped"] == 3
    assert [run["name"] for run in everything["online"]["runs"]] == list(NAMES)


def test_figures_are_small_and_repeat(found):
    for pictures in (bias_figure(found), horizon_figure(found), network_figure(OFFLINE, ONLINE)):
        assert pictures["png"].startswith(b"\x89PNG")
        assert b"<svg" in pictures["svg"]
        assert len(pictures["png"]) < 150_000
    assert horizon_figure(found) == horizon_figure(found)
