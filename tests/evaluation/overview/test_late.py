"""Steps that fit and steps that generalise, from the curves of reports."""

import math

import pytest

from metaopt.evaluation.overview.late import late_steps
from metaopt.evaluation.overview.saved import read_reports

from .saved_reports import content, late, save


def test_fitting_comes_before_generalising(tmp_path):
    table = late_steps(read_reports(save(tmp_path, late("far"))))
    rows = {(row.learner, row.trials): (row.t_fit, row.t_gen) for row in table.itertuples()}
    assert rows == {("mine", 1): (20.0, 80.0), ("adamw", 15): (10.0, math.inf)}
    assert set(table.suite) == {"far"}
    assert set(table.task) == {"plus"}


def test_other_families_have_no_such_moments(tmp_path):
    assert late_steps(read_reports(save(tmp_path, content("quick")))).empty


def test_losses_that_json_cannot_spell_generalise_never(tmp_path):
    report = late("far")
    curve = report["results"]["curves"]["plus"]["lines"]["mine"]
    curve["heldout_median"] = [None, "inf", "inf", None, None]
    table = late_steps(read_reports(save(tmp_path, report)))
    assert table[table.learner == "mine"].t_gen.tolist() == [math.inf]


@pytest.mark.parametrize("label", ["adamw K=5", "stranger"])
def test_curves_of_lines_that_the_report_lacks_are_left_out(tmp_path, label):
    report = late("far")
    report["results"]["summary"] = [row for row in report["results"]["summary"] if row["trials"] != 5]
    curves = report["results"]["curves"]["plus"]["lines"]
    curves[label] = curves["mine"]
    assert len(late_steps(read_reports(save(tmp_path, report)))) == 2
