"""`metaopt evaluate`: what it passes on and what it prints."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from metaopt import api
from metaopt.cli.main import cli


@pytest.mark.parametrize(("quarantined", "status"), [(0, 0), (1, 3)])
def test_arguments_report_and_status(monkeypatch: pytest.MonkeyPatch, quarantined: int, status: int) -> None:
    seen: list[Any] = []

    def evaluate(*arguments: Any) -> SimpleNamespace:
        seen.extend(arguments[:-1])
        return SimpleNamespace(path=Path("out"), quarantined=quarantined, text=lambda: "the table", to_json=lambda: '{"a": 1}')

    monkeypatch.setattr(api, "evaluate", evaluate)
    result = CliRunner().invoke(cli, ["evaluate", "--seeds", "2", "one", "--baselines", "sgd, adamw", "two", "--out", "out"])
    assert seen == [("one", "two"), "quick", ["sgd", "adamw"], 2, Path("out"), 0, None, "auto"]
    assert (result.exit_code, result.stdout) == (status, "the table\nreport: out/report.html\n")
    assert CliRunner().invoke(cli, ["evaluate", "one", "--json"]).stdout == '{"a": 1}\n'
