"""The report's files: complete, self-contained, honest, and the same numbers everywhere."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metaopt.baselines import Curves
from metaopt.evaluation.report import Results, TaskCurves, write_report
from metaopt.evaluation.rows import Reference, ScoredTask, learner_rows, sort_rows
from metaopt.evaluation.summary import score_cube, summarise, text_table
from metaopt.tasks import get

SPEC = get("quadratic").sample("6x6-minimum", 3, (40, 40))
STEPS = np.linspace(0.0, 40.0, 11)
TASKS = [ScoredTask(name, SPEC, 10.0, (7, 8, 9)) for name in ("a", "b")]


def falling(end, seeds=3):
    curve = np.linspace(1.0, end, 11)[:, None] + np.linspace(0.0, 0.05, seeds)
    return Curves(STEPS, curve, curve * 0.9, np.zeros(seeds, dtype=bool))


@pytest.fixture(scope="module")
def results():
    reference = Reference("sgd", 0.1, {40: falling(0.2)})
    lines = []
    for task in TASKS:
        lines += learner_rows(task, "mine | <b>", 1, falling(0.5), reference, kind="learner", learner_hash="f" * 16)
        for trials in (1, 15):
            lines += learner_rows(task, "sgd", trials, falling(0.2), reference, kind="baseline", learner_hash="sgd", rate=0.1)
    scores = sort_rows(lines)
    best = scores[(scores.learner == "sgd") & (scores.trials == 15)]
    summary = summarise(scores, best, [("mine | <b>", 1), ("sgd", 1), ("sgd", 15)])
    curves = {task.name: TaskCurves(SPEC, "sgd@0.1", {"mine | <b>": falling(0.5)}, {"sgd K=15": falling(0.2)}) for task in TASKS}
    provenance = {"suite": "small", "learners": {"mine | <b>": {"hash": "f" * 16, "rule": None}}, "meta_seeds": 1}
    return Results(provenance, scores, summary, ["a note & more"], curves)


@pytest.fixture(scope="module")
def report(results, tmp_path_factory):
    return write_report(results, {"seconds": 1.5}, tmp_path_factory.mktemp("report") / "new")


def test_a_learner_that_loses_is_shown_as_losing(report):
    mine, reference = report.summary.iloc[0], report.summary.iloc[2]
    assert mine.final_loss > reference.final_loss
    assert mine.speed_up < 0.8
    assert mine.improvement_high < 0.5
    assert reference.speed_up == pytest.approx(1.0)
    assert reference.improvement == 0.5


def test_the_folder_holds_every_file_and_nothing_half_written(report):
    files = sorted(str(path.relative_to(report.path)) for path in report.path.rglob("*") if path.is_file())
    curves = [f"curves/{task}-{kind}.png" for task in "ab" for kind in ("heldout", "train")]
    assert files == sorted([*curves, "headline.png", "report.html", "report.json", "report.md", "rows.jsonl", "timings.json"])


def test_a_second_report_replaces_the_first(results, tmp_path):
    write_report(results, {}, tmp_path)
    fewer = replace(results, curves={"a": results.curves["a"]})
    write_report(fewer, {}, tmp_path)
    assert sorted(path.name for path in (tmp_path / "curves").iterdir()) == ["a-heldout.png", "a-train.png"]


def test_json_is_strict_and_free_of_the_clock(report):
    def refuse(word):
        raise AssertionError(word)

    content = json.loads((report.path / "report.json").read_text(), parse_constant=refuse)
    assert content["schema_version"] == 1
    assert set(content) == {"schema_version", "provenance", "results"}
    assert "seconds" not in json.dumps(content)
    assert content["results"]["summary"][0]["final_loss"] == report.summary.final_loss[0]
    assert content["results"]["tasks"]["a"]["curves"]["sgd K=15"]["heldout_median"][-1] == pytest.approx(0.225)
    assert content["results"]["warnings"][0].startswith("Under-covered: 1 meta-seed and 2 tasks")
    rows = [json.loads(line, parse_constant=refuse) for line in (report.path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == len(report.scores)
    assert rows[0]["rate"] is None


def test_html_is_one_file_that_asks_for_nothing(report):
    text = (report.path / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert len(sources) == 6, "an icon, the headline, two curves for each of two tasks"
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in text
    assert "<script" not in text
    assert 'name="viewport"' in text
    assert "mine | &lt;b&gt;" in text, "names are escaped"
    assert "<b>" not in text


def test_markdown_has_the_same_numbers(report):
    text = (report.path / "report.md").read_text()
    assert f"{report.summary.final_loss[0]:.4f}" in text
    assert "mine \\| <b>" in text
    columns = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(columns) == 2, "two tables, each of one width"


def test_the_terminal_table_fits_eighty_columns(report):
    lines = report.text().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(("mine", "sgd")) for line in lines) == 3


def test_the_widest_possible_line_fits_eighty_columns():
    wide = dict.fromkeys(("final_loss", "final_loss_low", "final_loss_high"), 10.0) | dict.fromkeys(
        ("speed_up", "speed_up_low", "speed_up_high"), 4.0
    )
    row = {"learner": "x" * 60, "kind": "learner", "trials": 1, **wide, "censored": 100, "failures": 100, "runs": 100}
    assert max(map(len, text_table(pd.DataFrame([row])).splitlines())) <= 80


def test_pictures_are_png_and_repeat_byte_for_byte(report):
    for task, kind in ((None, "heldout"), ("a", "heldout"), ("b", "train")):
        picture = report.plot(task, kind)
        assert picture.startswith(b"\x89PNG")
        assert picture == report.plot(task, kind)
    with pytest.raises(KeyError):
        report.plot("c")


def test_a_negative_training_loss_can_be_drawn(results):
    below = Curves(STEPS, falling(0.01).heldout, falling(-0.02).heldout - 0.05, np.zeros(3, dtype=bool))
    from metaopt.evaluation.figures import curve_figure

    assert curve_figure("below", {"x": below}, {}, "train").startswith(b"\x89PNG")


def test_a_missing_run_is_an_error_not_an_average(results):
    scores = results.scores
    rows = scores[scores.learner == "mine | <b>"]
    assert score_cube(rows, "final_loss").values.shape == (1, 2, 3)
    with pytest.raises(ValueError, match="finite"):
        score_cube(rows.iloc[1:], "final_loss")
    with pytest.raises(ValueError, match="duplicate"):
        score_cube(pd.concat([rows, rows]), "final_loss")


@pytest.mark.parametrize("label", ["adamw@0.02612", "adamw@beta1=0.88,lr=0.02612,weight_decay=0.05"])
def test_the_task_table_names_a_reference_in_a_few_words(results, tmp_path, label):
    curves = {name: replace(one, reference=label) for name, one in results.curves.items()}
    told = write_report(replace(results, curves=curves), {"seconds": 1.5}, tmp_path / "new").path
    assert "adamw, lr 0.026 |" in (told / "report.md").read_text()
    tasks = json.loads((told / "report.json").read_text())["results"]["tasks"]
    assert {one["reference"] for one in tasks.values()} == {label}
