"""Policies under the commands for all artifacts."""

import json

import pytest
from click.testing import CliRunner

from metaopt.cli.main import cli
from metaopt.evaluation import evaluate
from tests.evaluation.policies.made_policies import loud


def test_its_card_is_shown(tmp_path):
    path = loud(name="mine").save(tmp_path / "mine")
    result = CliRunner().invoke(cli, ["show", str(path), "--json"])
    assert (result.exit_code, result.stderr) == (0, "")
    card = json.loads(result.stdout)
    assert (card["name"], card["kind"], card["interface"]) == ("mine", "policy", "hyperparameter_policy/1")
    assert len(card["features"]) == 161


@pytest.mark.slow
def test_it_is_a_learner_of_any_suite(tmp_path, small_suite):
    path = loud(name="mine").save(tmp_path / "mine")
    report = evaluate([str(path)], suite=small_suite, baselines=["sgd"], seeds=2)
    assert set(report.summary[report.summary.kind == "learner"].learner) == {"mine"}
    assert report.summary.failures.sum() == 0
