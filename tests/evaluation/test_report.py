"""The report's files: complete, self-contained, strict, and the same bytes every time."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metaopt.evaluation import report as report_module
from metaopt.evaluation.report import SCHEMA_VERSION, report_json, write_report
from metaopt.evaluation.tables.results import COLUMNS, TaskCurves, make_table
from tests.evaluation import made_results as made

FIGURES = ("headline", "score", "speed_up", "tasks", "score_profile", "time_profile", "tunability", "curves-autoencoder")


def strictly(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_one_figure():
    results = made.small()
    empty = {name: make_table(name, []) for name in ("tasks", "score_profile", "time_profile", "tunability")}
    return replace(results, curves={}, **empty)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(made.small(), made.TIMINGS, tmp_path_factory.mktemp("report") / "new" / "folder", quarantined=2)


def test_the_folder_holds_every_file_and_nothing_half_written(report):
    names = (*FIGURES, "curves-byte_transformer_lm")
    expected = {f"figures/{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert set(files(report.path)) == expected | {"report.html", "report.json", "report.md", "rows.jsonl", "timings.json"}
    assert report.quarantined == 2


def test_the_same_results_give_the_same_bytes(report, tmp_path):
    write_report(made.make(made.TASKS[:2]), made.TIMINGS, tmp_path)
    first, second = files(report.path), files(tmp_path)
    assert [name for name in first if first[name] != second[name]] == []


def test_the_clock_touches_only_what_shows_it(tmp_path):
    later = {**made.TIMINGS, "seconds": 99.5, "step_seconds": [], "load_average": [9.0, 9.0, 9.0]}
    first, second = (
        files(write_report(with_one_figure(), timings, tmp_path / timings_name).path)
        for timings_name, timings in (("a", made.TIMINGS), ("b", later))
    )
    assert {name for name in first if first[name] != second[name]} == {"timings.json", "report.md", "report.html"}


def test_a_second_report_replaces_the_first(tmp_path):
    results = made.small()
    (tmp_path / "figures").mkdir()
    for name in ("curves-gone.png", "curves-gone.svg", "notes.txt"):
        (tmp_path / "figures" / name).write_text("old")
    fewer = replace(with_one_figure(), curves={"autoencoder": results.curves["autoencoder"]})
    write_report(fewer, {}, tmp_path)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "notes.txt" in names, "what no report wrote is left alone"
    assert not any("gone" in name or "tunability" in name or "byte" in name for name in names)


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    report_module.write_whole(path, b"old")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        report_module.write_whole(path, b"new")
    assert files(tmp_path) == {"report.json": b"old"}


def test_report_json_comes_last(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(report_module, "write_whole", lambda path, content: written.append(path.name))
    write_report(with_one_figure(), {}, tmp_path)
    assert written[-1] == "report.json"
    assert len(written) == len(set(written))


def test_json_is_strict_and_free_of_the_clock(report):
    text = (report.path / "report.json").read_text()
    content = strictly(text)
    assert content["schema_version"] == SCHEMA_VERSION == 2
    assert set(content) == {"schema_version", "provenance", "results"}
    assert set(content["results"]) == {"verdicts", "warnings", "notes", "curves", *COLUMNS} - {"scores"}
    assert "seconds" not in text
    assert text == report.to_json()
    assert content["results"]["summary"][0]["score"] == report.summary.score[0]
    assert content["results"]["verdicts"][0]["learner"] == "celo2-base"
    curve = content["results"]["curves"]["autoencoder"]["lines"]["sgd K=15"]
    assert len(curve["heldout_median"]) == len(curve["steps"]) == 41


def test_undefined_values_are_null_and_infinite_ones_say_so():
    branches = strictly(report_json(made.ordered()))["results"]["branches"]
    assert {row["s50"] for row in branches} == {None, "inf", 6.0}
    assert strictly(report_json(made.unordered()))["results"]["levels"][0]["factor"] is None


def test_a_diverged_run_is_no_number_in_json_and_can_be_drawn(tmp_path):
    curves = made.falling(0.5)
    curves.heldout[20:] = np.nan
    curves.train[20:] = np.inf
    task = TaskCurves(made.SPEC, "adamw@lr=0.1", {"celo2-base": curves}, {})
    broken = replace(with_one_figure(), curves={"autoencoder": task})
    found = strictly(report_json(broken))["results"]["curves"]["autoencoder"]["lines"]["celo2-base"]
    assert found["heldout_median"][-1] is None
    assert found["train_high"][-1] == "inf"
    assert write_report(broken, {}, tmp_path).plot("autoencoder").startswith(b"\x89PNG")


def test_rows_hold_every_run_once(report):
    rows = [strictly(line) for line in (report.path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == len(report.scores)
    assert list(rows[0]) == list(COLUMNS["scores"])
    assert rows[0]["settings"] is None
    assert rows[0]["steps_to_target"] is None or rows[0]["steps_to_target"] > 0


def test_timings_stand_apart(report):
    assert strictly((report.path / "timings.json").read_text()) == made.TIMINGS


def test_every_table_is_an_attribute(report):
    for name, columns in COLUMNS.items():
        table = getattr(report, name)
        assert isinstance(table, pd.DataFrame)
        assert tuple(table.columns) == columns


def test_plots_by_name_and_by_task_repeat_byte_for_byte(report):
    assert set(FIGURES) <= set(report.figures)
    assert report.plot().startswith(b"\x89PNG")
    assert report.plot("autoencoder") == (report.path / "figures" / "curves-autoencoder.png").read_bytes()
    assert report.plot("score", format="svg") == (report.path / "figures" / "score.svg").read_bytes()
    assert report.plot("score") == (report.path / "figures" / "score.png").read_bytes()


def test_a_figure_that_is_not_there_names_those_that_are(report):
    with pytest.raises(KeyError, match="no figure 'axis-score'; there are headline, score"):
        report.plot("axis-score")
    with pytest.raises(ValueError, match="format must be one of png, svg, got 'pdf'"):
        report.plot(format="pdf")


def test_tasks_may_have_any_name(tmp_path):
    results = made.small()
    hostile = "../a/b: 50%@x0.5"
    tasks = results.tasks.replace({"task": {"autoencoder": hostile}})
    renamed = replace(with_one_figure(), tasks=tasks, curves={hostile: results.curves["autoencoder"]})
    told = write_report(renamed, {}, tmp_path / "report")
    inside = {path.name for path in (tmp_path / "report" / "figures").iterdir()}
    assert "curves-..%2Fa%2Fb%3A 50%25@x0.5.png" in inside
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert told.plot(hostile).startswith(b"\x89PNG")
    (link,) = re.findall(r"\(<(figures/curves-[^>]*)>\)", (told.path / "report.md").read_text())
    assert link == "figures/curves-..%252Fa%252Fb%253A 50%2525@x0.5.png"


@pytest.mark.parametrize("results", [made.plain, made.ordered, made.unordered])
def test_the_text_fits_eighty_columns(results):
    lines = report_module.Report(None, results()).text().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(("celo2-base  ", "adamw  ", "sgd  ")) for line in lines) == 7
    assert any(line.startswith("Under-covered: 1 meta-seed") for line in lines)


def test_the_widest_possible_line_fits_eighty_columns():
    results = made.small()
    wide = {f"{name}{end}": -123.456 for name in ("score",) for end in ("", "_low", "_high")} | {
        "final_loss": 10.0,
        "final_loss_high": 10.0,
    }
    wide |= {f"speed_up{end}": 4.0 for end in ("", "_low", "_high")} | {"learner": "x" * 60, "censored": 400, "failures": 400, "runs": 400}
    lines = report_module.Report(None, replace(results, summary=results.summary.assign(**wide).head(1))).text().splitlines()
    assert max(map(len, lines[:3])) <= 80


@pytest.mark.parametrize(("loss", "shown"), [(0.0848, "0.085"), (0.6805001, "0.681"), (9.9994, "9.999"), (9.9996, "10"), (10.0, "10")])
def test_losses_for_a_terminal_are_rounded_and_not_cut(loss, shown):
    results = made.small()
    lines = report_module.Report(None, replace(results, summary=results.summary.assign(final_loss=loss).head(1))).text().splitlines()
    assert re.search(rf"\] +{shown.replace('.', '[.]')} ", lines[2]), lines[2]
