"""Suites as data: found, checked against their families, held out."""

import pytest

from metaopt import tasks
from metaopt.errors import ConfigError, TaskError
from metaopt.evaluation import load_suite, suite_names


def test_quick_has_eight_held_out_tasks_of_three_families():
    suite = load_suite("quick")
    assert "quick" in suite_names()
    assert len(suite.specs) == 8
    assert {spec.family for spec in suite.specs.values()} == {"quadratic", "digits_mlp", "digits_conv"}
    assert len({spec.hash for spec in suite.specs.values()}) == 8
    for spec in suite.specs.values():
        assert spec.split == "meta_test"
        assert spec.template not in tasks.get(spec.family).templates("meta_train")
        assert 100 <= spec.horizon <= 400


def test_no_run_of_quick_starts_at_the_cap():
    """A task whose first loss is at the cap would count every learner as diverged."""
    import torch

    for name, spec in load_suite("quick").specs.items():
        task = tasks.build(spec)
        key, step = torch.tensor(spec.horizon), torch.tensor(0)
        first = task.normalise(task.loss(task.init(key), task.heldout(key, step)))
        assert first < 0.9 * task.program.cap, name


def test_unknown_suite_names_the_nearest():
    with pytest.raises(ConfigError, match="suite 'quik' is unknown; did you mean 'quick'"):
        load_suite("quik")


def test_a_suite_that_its_family_no_longer_makes_is_refused(tmp_path):
    path = tmp_path / "changed.yaml"
    text = (
        'description: x\ntasks:\n  - {name: a, family: quadratic, template: 6x6-minimum, seed: 1, horizon: 9, hash: "0000000000000000"}\n'
    )
    path.write_text(text)
    with pytest.raises(TaskError, match=r"suite task 'a' is now .*its family changed \(.*changed.yaml:3\)"):
        load_suite(str(path))


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("tasks: []", ConfigError, "must hold 'description' and a list 'tasks'"),
        ("description: x\ntasks: []", ConfigError, "must hold 'description' and a list 'tasks'"),
        ("description: x\ntasks:\n  - {name: a}", ConfigError, r"must have exactly name, family.*yaml:3"),
        (
            'description: x\ntasks:\n  - {name: a, family: quadratic, template: t, seed: 1.5, horizon: 9, hash: ""}',
            ConfigError,
            "field seed must be int, got 1.5",
        ),
        (
            'description: x\ntasks:\n  - {name: ../a, family: quadratic, template: t, seed: 1, horizon: 9, hash: ""}',
            ConfigError,
            "plain name",
        ),
        (
            'description: x\ntasks:\n  - {name: a, family: quadratics, template: t, seed: 1, horizon: 9, hash: ""}',
            ConfigError,
            "did you mean",
        ),
        (
            'description: x\ntasks:\n  - {name: a, family: quadratic, template: t, seed: 1, horizon: 9, hash: ""}',
            TaskError,
            "no template 't'",
        ),
        (
            'description: x\ntasks:\n  - {name: a, family: quadratic, template: 10x1-none, seed: 1, horizon: 9, hash: ""}',
            TaskError,
            "is in meta_train, a suite may only use meta_test",
        ),
    ],
)
def test_bad_suites_are_one_line_with_their_place(tmp_path, body, error, message):
    path = tmp_path / "bad.yaml"
    path.write_text(body)
    with pytest.raises(error, match=message) as caught:
        load_suite(str(path))
    assert "\n" not in str(caught.value)


def test_a_task_that_is_there_twice_is_refused(tmp_path, small_suite):
    from pathlib import Path

    lines = Path(small_suite).read_text().splitlines()
    path = tmp_path / "twice.yaml"
    path.write_text("\n".join([*lines, lines[-1]]))
    with pytest.raises(TaskError, match="is there twice"):
        load_suite(str(path))


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_suite(str(tmp_path / "none.yaml"))
