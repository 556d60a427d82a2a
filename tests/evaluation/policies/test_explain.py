"""What is said about a policy."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from metaopt.evaluation.policies import explain_policy
from metaopt.evaluation.policies.explain import POINTS, knob_table
from metaopt.evaluation.policies.loop import Play
from tests.evaluation.policies.made_policies import SMALL, constant, loud

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def explained(baseline_store):
    return explain_policy(loud(), SMALL, seeds=2, store=baseline_store)


def made(factors):
    factors = torch.as_tensor(factors, dtype=torch.float64)
    values = torch.ones(*factors.shape, 8, dtype=torch.float64)
    values[..., 0] = factors
    runs = factors.shape[1]
    return Play(tuple(range(len(factors))), torch.ones(runs, 8), values, torch.empty(0), torch.zeros(runs), torch.zeros(runs))


def test_knobs_are_told_by_share_of_the_decisions():
    table = knob_table([("a", made([[1.0, 1.0, 1.0], [2.0, 4.0, 8.0]])), ("b", made([[1.0]]))], ["lr", "epsilon"])
    assert set(table.knob) == {"lr"}  # nobody moved the other
    own = table[table.family == "a"].set_index("share")
    assert (own.loc[:0.49, "median"] == 1.0).all()
    assert (own.loc[0.5:, "median"] == 4.0).all()
    assert own.low.iloc[-1] == pytest.approx(np.percentile([2, 4, 8], 10))
    assert (table[table.family == "b"][["low", "median", "high"]] == 1.0).all().all()
    assert len(own) == POINTS


def test_an_explanation_has_all_three_parts(explained):
    assert explained.about["tasks"] == 2
    assert "lr" in set(explained.knobs.knob)
    assert explained.sensitivity.kl_history.notna().all()
    assert explained.sensitivity.kl_history.max() > 0
    assert set(explained.open_loop.who) == {"policy", "replay of mean changes", "replay of mean rate"}
    assert set(explained.open_loop.family) == {"all", "quadratic"}
    assert explained.open_loop[["reward_best", "wins"]].notna().all().all()


def test_it_is_written_as_json_and_pictures(explained, tmp_path):
    written = explained.save(tmp_path)
    assert {path.name for path in written} == {"explanation.json", "sensitivity.png", "open_loop.png", "knobs.png"}
    content = json.loads(written[0].read_text())
    assert content["sensitivity"][0].keys() == {"group", "kl_now", "kl_history", "shift_now", "shift_history", "agree"}
    assert all(path.read_bytes().startswith(PNG) for path in written[1:])


@pytest.mark.slow
def test_a_policy_that_never_moves_has_no_figure_of_knobs(baseline_store, tmp_path):
    found = explain_policy(constant(), SMALL, seeds=1, store=baseline_store)
    assert found.knobs.empty
    assert {path.name for path in found.save(tmp_path)} == {"explanation.json", "sensitivity.png", "open_loop.png"}
    assert found.sensitivity.kl_now.abs().max() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", ["evaluate_policy", "policy_explain"])
def test_scripts_refuse_what_is_no_policy(name, capsys, tmp_path):
    path = Path(__file__).parents[3] / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert len(path.read_text().splitlines()) < 80
    assert script.main(["celo2-base", str(tmp_path / "out")]) == 2
    assert "is of kind update_rule, no policy" in capsys.readouterr().err
    saved = constant().save(tmp_path / "policy")
    assert script.main([str(saved), str(tmp_path / "out")]) == 2
    assert "names no families" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
