"""The comparison of searches with grids of rates: held-out templates are refused, and its numbers are those of single runs."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from metaopt import baselines, tasks
from metaopt.baselines import CurveKey, run_job

PLACE = "quadratic:8x6-none"


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[2] / "scripts" / "compare_searches.py"
    spec = importlib.util.spec_from_file_location("compare_searches", path)
    module = importlib.util.module_from_spec(spec)
    threads = torch.get_num_threads()
    spec.loader.exec_module(module)
    yield module
    torch.set_num_threads(threads)


def test_only_validation_templates_are_looked_at(script, capsys):
    for place in script.TASKS:
        assert script._task(place, 10).split == "meta_valid"
    for split in ("meta_test", "meta_train"):
        template = next(iter(tasks.get("quadratic").templates(split)))
        assert script.main(["--task", f"quadratic:{template}"]) == 2
        assert f"is in {split}: search spaces may only look at meta_valid" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--task", "quadratic:x"], "has no template 'x'"), (["--baselines", "sgdd"], "'sgdd'")]
)
def test_bad_input_is_one_line(script, capsys, arguments, message):
    assert script.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_trials_are_chosen_on_some_seeds_and_scored_on_others(script):
    spec, baseline = script._task(PLACE, 12), baselines.get("sgd")
    trials = baseline.rate_trials()
    default, (score, best) = script._result(spec, baseline, trials)
    chosen, scored = (
        [run_job(CurveKey(spec, baseline, (trial,), seeds).job()).heldout[-1].mean() for trial in trials]
        for seeds in (script.CHOOSE, script.SCORE)
    )
    assert not set(script.CHOOSE) & set(script.SCORE)
    assert best == trials[int(np.argmin(chosen))]
    assert score == pytest.approx(scored[trials.index(best)], rel=1e-4)
    assert default == pytest.approx(scored[0], rel=1e-4)


def test_it_prints_a_line_for_each_task_and_their_mean(script, capsys):
    assert script.main(["--task", PLACE, "--task", "quadratic:12x1-gradient", "--baselines", "sgd,adamw", "--horizon", "10"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[:2] for line in lines[:3]] == [["sgd", PLACE], ["sgd", "quadratic:12x1-gradient"], ["sgd", "mean"]]
    one, two, mean = (np.array(line[2:5], float) for line in lines[:3])
    assert mean == pytest.approx((one + two) / 2, abs=1e-4)
    assert all(0.0 <= float(at) <= 1.0 for line in lines if line[1] != "mean" for at in line[5:])
    assert len(lines) == 6
