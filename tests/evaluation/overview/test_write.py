"""The overview's files: complete, self-contained, the same bytes twice, and of reports from anywhere."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import pytest

from metaopt.errors import ConfigError
from metaopt.evaluation.overview import overview
from metaopt.evaluation.overview.multiples import small_multiples
from metaopt.evaluation.overview.saved import read_reports
from metaopt.evaluation.overview.tables import all_lines
from metaopt.evaluation.reporting.canvas import lines_of

from .saved_reports import content, late, ordered, save, unordered


def everything():
    return content("quick"), ordered("width"), unordered("activation"), late("far")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    reports = save(folder, *everything())
    for form in ("html", "md"):
        (reports[0] / f"report.{form}").touch()
    return overview(reports, folder, {"depth": "TaskError: its family changed"})


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_folder_holds_every_file_and_nothing_half_written(made):
    names = {name for name in files(made.path) if "report." not in name}
    drawn = [f"degradation-{suite}-{measure}" for suite in ("width", "activation") for measure in ("score", "retention")]
    drawn += [f"small-multiples-{measure}" for measure in ("score", "retention")]
    figures = {f"figures/{name}.{form}" for name in drawn for form in ("png", "svg")}
    assert names == figures | {"overview.json", "overview.md", "overview.html"}


def test_pictures_are_pictures(made):
    for name, written in files(made.path / "figures").items():
        if name.endswith(".png"):
            assert written.startswith(b"\x89PNG")
        else:
            assert ElementTree.fromstring(written).tag.endswith("svg")


def test_html_is_one_file_with_links_to_the_reports(made):
    text = (made.path / "overview.html").read_text()
    targets = re.findall(r'href="([^"]*)"', text)
    leads = [target for target in targets if not target.startswith(("data:", "#"))]
    assert leads == ["quick/report.html", "width/report.json", "activation/report.json", "far/report.json"]
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]{0,30})', text))
    assert len(re.findall(r"<img", text)) == 4, "both measures of both axes"
    assert "<script" not in text
    assert 'name="viewport"' in text
    assert "its family changed" in text


def test_markdown_links_and_pictures_lead_somewhere(made):
    text = (made.path / "overview.md").read_text()
    assert text == made.text()
    targets = re.findall(r"\]\(<([^>]*)>\)", text)
    assert len(targets) == 2 + 4
    assert "quick/report.md" in targets
    assert all((made.path / target).is_file() for target in targets)
    widths = {}
    for line in text.splitlines():
        if line.startswith("|"):
            widths.setdefault(widths.get("table"), set()).add(line.replace("\\|", "").count("|"))
        else:
            widths["table"] = len(widths)
    assert all(len(found) == 1 for name, found in widths.items() if name != "table"), "every table has one width"


def test_json_has_every_table_and_is_strict(made):
    def refuse(word):
        raise AssertionError(word)

    found = json.loads((made.path / "overview.json").read_text(), parse_constant=refuse)
    assert found["schema_version"] == 1
    assert [one["suite"] for one in found["reports"]] == ["quick", "width", "activation", "far"]
    assert found["reports"][1]["axis"] == "width"
    assert found["reports"][1]["report"] == "width/report.json"
    assert found["failures"] == {"depth": "TaskError: its family changed"}
    assert set(found["results"]) == {"headline", "levels", "branches", "gaps", "far_ends", "families", "late"}
    assert found["results"]["headline"][0]["score_low"] == 0.85
    down = next(row for row in found["results"]["far_ends"] if row["direction"] == "down")
    assert (down["s50"], down["level"]) == ("inf", "x0.5")
    assert {row["t_gen"] for row in found["results"]["late"]} == {80.0, "inf"}
    assert "seconds" not in json.dumps(found)


def test_a_second_overview_has_the_same_bytes(made, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(made.path, folder)
    before = files(folder)
    overview([folder / name for name in ("quick", "width", "activation", "far")], folder, made.failures)
    assert files(folder) == before


def test_reports_from_elsewhere_are_linked_from_where_they_lie(tmp_path):
    reports = save(tmp_path / "theirs", ordered("width"))
    made = overview([reports[0] / "report.json"], tmp_path / "mine" / "new")
    assert "../../theirs/width/report.json" in (made.path / "overview.html").read_text()


def test_figures_of_an_earlier_overview_are_gone_and_others_are_not(tmp_path):
    reports = save(tmp_path, content("quick"))
    (tmp_path / "figures").mkdir()
    for name in ("mine.png", "degradation-width-score.png", "small-multiples-score.svg"):
        (tmp_path / "figures" / name).touch()
    overview(reports, tmp_path)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.png"]


def test_a_suite_with_a_strange_name_has_figures_and_links(tmp_path):
    reports = save(tmp_path, ordered("my suite#1 (new)"))
    made = overview(reports, tmp_path)
    targets = re.findall(r"\]\(<([^>]*)>\)", made.text())
    assert "my%20suite%231%20%28new%29/report.json" in targets
    figures = {target.removeprefix("figures/").replace("%25", "%") for target in targets if target.startswith("figures/")}
    assert all((tmp_path / "figures" / name).is_file() for name in figures)


def test_names_are_escaped(tmp_path):
    hostile = ("<b>|", "learner", 1)
    text = overview(save(tmp_path, content("quick", lines=(hostile,))), tmp_path).path.joinpath("overview.html").read_text()
    assert "<b>" not in text
    assert "&lt;b&gt;|" in text


def test_an_axis_on_which_nobody_keeps_anything_is_drawn_by_score_only(tmp_path):
    report = ordered("width", s50=None)
    for row in report["results"]["levels"]:
        row.update(retention=None, retention_low=None, retention_high=None)
    made = overview(save(tmp_path, report), tmp_path)
    assert {path.stem for path in (made.path / "figures").iterdir()} == {"degradation-width-score", "small-multiples-score"}


def test_nothing_is_written_if_a_report_cannot_be_read(tmp_path):
    reports = save(tmp_path / "in", content("quick"))
    for paths, message in (([], "at least one report"), ([*reports, tmp_path / "none"], "cannot be read")):
        with pytest.raises(ConfigError, match=message):
            overview(paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_many_axes_share_one_figure(tmp_path):
    reports = read_reports(save(tmp_path, *(ordered(f"axis{i}") for i in range(4))))
    lines = lines_of(all_lines(reports))
    sides = []
    for count in (1, 4):
        svg = small_multiples("score", reports[:count], lines, ("svg",))["svg"].decode()
        sides.append([float(side) for side in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2]])
    assert sides[1][0] == pytest.approx(3 * sides[0][0]), "three columns"
    assert sides[0][1] < sides[1][1] < 2.1 * sides[0][1], "two rows and one legend"
