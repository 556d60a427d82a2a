"""What reports write, overviews read: the two agree on names and shapes, also where names are hostile and numbers are missing."""

import pandas as pd
import pytest

from metaopt.evaluation.overview import overview
from metaopt.evaluation.overview.saved import read_report
from metaopt.evaluation.report import report_json
from tests.evaluation.made_results import LEARNERS, ordered, plain, unordered

RESULTS = {"plain": plain, "ordered": ordered, "unordered": unordered}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, results in RESULTS.items():
        made[name] = tmp_path_factory.mktemp(name)
        (made[name] / "report.json").write_text(report_json(results()))
    return made


@pytest.mark.parametrize("name", RESULTS)
def test_tables_come_back_as_they_were(folders, name):
    report, results = read_report(folders[name]), RESULTS[name]()
    assert report.warnings == results.warnings
    for which, table in report.tables.items():
        expected = getattr(results, which)
        assert list(table.columns) == list(expected.columns)
        for column in table.columns:
            if pd.api.types.is_numeric_dtype(expected[column]) and column != "inside_support":
                pd.testing.assert_series_equal(table[column], expected[column], check_dtype=False)
            else:
                assert table[column].isna().tolist() == expected[column].isna().tolist()
                assert table[column].dropna().tolist() == expected[column].dropna().tolist()


def test_curves_come_back_by_task_and_line(folders):
    curves = read_report(folders["plain"]).curves
    assert set(curves) == set(plain().curves)
    for one in curves.values():
        assert set(LEARNERS) <= set(one["lines"])
        assert {"steps", "train_median", "heldout_median"} <= set(one["lines"]["celo2-base"])


def test_an_overview_of_all_of_them(folders, tmp_path):
    made = overview([folders["plain"], folders["ordered"]], tmp_path)
    assert set(made.tables["headline"].suite) == {"standard", "axis-width"}
    page = (tmp_path / "overview.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&gt;16" in page, "a shift that no level reaches"
