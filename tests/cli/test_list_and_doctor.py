"""`metaopt list` and `metaopt doctor`: tables for people, JSON for programs."""

import json
from importlib.metadata import PackageNotFoundError

import pytest
from click.testing import CliRunner

from metaopt import learners, tasks
from metaopt.cli import doctor
from metaopt.cli.main import cli
from metaopt.config import bundled_configs


def rows(*words: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(cli, [*words, "--json"])
    assert (result.exit_code, result.stderr) == (0, "")
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("kind", ["tasks", "learners", "configs", "suites", "baselines", "artifacts"])
def test_every_kind_has_a_table_with_a_line_each(kind: str) -> None:
    found = rows("list", kind)
    lines = CliRunner().invoke(cli, ["list", kind]).stdout.splitlines()
    names = CliRunner().invoke(cli, ["list", kind, "-q"]).stdout.split()
    if found:
        assert len(lines) == len(found) + 1
        assert lines[0].split() == list(found[0])[: 3 if kind == "suites" else None]  # of suites, what a terminal has room for
    assert names == [row["name"] for row in found] or names == ["none"]


def test_lists_are_those_of_the_registries() -> None:
    assert [row["name"] for row in rows("list", "tasks")] == list(tasks.names())
    assert [row["name"] for row in rows("list", "learners")] == list(learners.names())
    assert [row["name"] for row in rows("list", "configs")] == list(bundled_configs())


def test_rows_say_what_programs_need() -> None:
    by_name = {row["name"]: row for row in rows("list", "tasks")}
    assert by_name["digits_conv"]["meta_train"] == 0
    assert by_name["digits_mlp"]["offers"] == ["stream", "model"]
    by_name = {row["name"]: row for row in rows("list", "learners")}
    assert by_name["adamw"] == {"name": "adamw", "kind": "update_rule", "meta_parameters": 0, "sees": "tensor", "reads": []}
    assert (by_name["celo"]["sees"], by_name["celo"]["reads"]) == ("model", ["loss", "total_steps"])
    for row in rows("list", "artifacts"):
        assert set(row) == {"name", "kind", "path"}


def test_suites_say_what_runs_on_them() -> None:
    by_name = {row["name"]: row for row in rows("list", "suites")}
    quick, width = by_name["quick"], by_name["width"]
    assert (quick["tasks"], quick["axis"], quick["levels"]) == (8, None, [])
    assert quick["families"] == ["digits_conv", "digits_mlp", "quadratic"]
    assert quick["kinds"] == {"update_rule": 8, "hypergradient": 8, "policy": 8, "per_weight": 5, "in_context": 5}
    assert (width["axis"], width["levels"]) == ("width", ["x0.25", "x0.5", "x1", "x2", "x4", "x8"])
    assert (width["baselines"], width["seeds"]) == (["sgd_momentum", "adamw"], 5)
    assert max(map(len, CliRunner().invoke(cli, ["list", "suites"]).stdout.splitlines())) <= 80


def test_doctor_names_what_is_missing_and_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = doctor.version

    def version(name: str) -> str:
        if name == "schedulefree":
            raise PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(doctor, "version", version)
    by_what = {row["what"]: row for row in rows("doctor")}
    assert by_what["torch"]["missing_for"] == ""
    assert "cpu" in str(by_what["devices"]["found"])
    missing = by_what["schedulefree"]
    assert missing["missing_for"] == "the schedule-free baseline"
    assert missing["fix"] == "pip install 'metaopt-platform[baselines]'"
    quiet = CliRunner().invoke(cli, ["doctor", "-q"]).stdout
    assert "schedulefree" in quiet
    assert "python" not in quiet
