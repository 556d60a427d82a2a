"""Reading reports back: numbers that JSON cannot spell, and files that are none."""

import json
import math

import pytest

from metaopt.errors import ConfigError
from metaopt.evaluation.overview.saved import read_report, read_reports
from metaopt.evaluation.tables.results import COLUMNS

from .saved_reports import content, ordered, save, unordered


def test_a_folder_and_its_file_are_the_same_report(tmp_path):
    (folder,) = save(tmp_path, content("quick"))
    one, other = read_report(folder), read_report(str(folder / "report.json"))
    assert (one.suite, one.folder) == (other.suite, other.folder) == ("quick", folder)
    assert one.tables["summary"].equals(other.tables["summary"])
    assert one.warnings == ["Under-covered: 1 meta-seed and 2 tasks."]


def test_tables_have_their_columns_even_where_nothing_was_written(tmp_path):
    report = read_report(*save(tmp_path, content("quick")))
    for name, table in report.tables.items():
        assert tuple(table.columns) == COLUMNS[name]
    assert report.tables["levels"].empty
    assert report.axis is None


def test_null_is_undefined_and_inf_is_infinite(tmp_path):
    report = read_report(*save(tmp_path, ordered("width", s50="inf")))
    branches = report.tables["branches"]
    assert branches.s50.tolist() == [math.inf] * len(branches)
    assert branches.s50_low.tolist() == [2.5] * len(branches)
    assert math.isnan(report.tables["summary"].algoperf[0])
    assert read_report(*save(tmp_path, unordered("activation"))).tables["levels"].factor.isna().all()


def test_a_learner_may_be_called_inf(tmp_path):
    report = read_report(*save(tmp_path, content("quick", lines=(("inf", "learner", 1),))))
    assert report.tables["summary"].learner.tolist() == ["inf"]


def test_support_stays_true_false_or_unknown(tmp_path):
    levels = read_report(*save(tmp_path, ordered("width"))).tables["levels"]
    assert levels[levels.kind == "learner"].inside_support.tolist() == [False, True, True, False]
    assert levels[levels.kind == "baseline"].inside_support.isna().all()


@pytest.mark.parametrize(("axis", "name"), [({"name": "width"}, "width"), ("width", "width"), (None, "suite-w")])
def test_an_axis_is_called_what_the_provenance_says(tmp_path, axis, name):
    report = ordered("suite-w")
    report["provenance"]["axis"] = axis
    assert read_report(*save(tmp_path, report)).axis == name


def test_two_reports_of_a_suite_are_refused(tmp_path):
    folders = save(tmp_path / "a", content("quick")) + save(tmp_path / "b", content("quick"))
    with pytest.raises(ConfigError, match=r"suite 'quick' is in two reports, .*a/quick and .*b/quick"):
        read_reports(folders)


def broken(change):
    report = content("quick")
    change(report)
    return json.dumps(report)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged or no report of an evaluation"),
        ("[]", "is damaged or no report of an evaluation"),
        ('{"config": 1}', "is damaged or no report of an evaluation: KeyError 'schema_version'"),
        (broken(lambda report: report.pop("provenance")), "KeyError 'provenance'"),
        (broken(lambda report: report["results"]["summary"][0].update(score="much")), "KeyError 'much'"),
        (broken(lambda report: report.update(schema_version=1)), "has schema_version 1, can be read: 2; evaluate again"),
    ],
)
def test_what_is_no_report_is_one_line(tmp_path, text, message):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "report.json") in str(caught.value)


def test_a_missing_report_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"report '.*nothing' cannot be read: No such file"):
        read_report(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"report '.*report.json' cannot be read: No such file"):
        read_report(tmp_path)
