"""Suites as data: found, checked against their families, held out, shifted along an axis."""

from dataclasses import replace
from pathlib import Path

import pytest

from metaopt import tasks
from metaopt.errors import ConfigError, TaskError
from metaopt.evaluation import load_suite, suite_names, suites
from metaopt.evaluation.suites import AxisLevel, kinds_of, pinned_hash
from metaopt.tasks import shift

NET = ("56-selu-b24", 1, 40)
EARLIER = {  # hashes of quick before there were axes
    "quadratic-noisy-20": "ca022811cd6d7625",
    "quadratic-moving-6x6": "d23387ff946419d1",
    "quadratic-clean-15x3": "8342a3b65ba7270a",
    "mlp-wide": "900424d2c7cc2aff",
    "mlp-silu-2": "0c45c15b1263cbdd",
    "mlp-tanh-3": "988761847bdb7f2e",
    "conv-relu-2": "a382516772c3e6d3",
    "conv-tanh-1": "46ac9e5b01b80030",
}


def fields(family: str, template: str, seed: int, horizon: int) -> str:
    found = pinned_hash(tasks.get(family).sample(template, seed, (horizon, horizon)))
    return f'family: {family}, template: {template}, seed: {seed}, horizon: {horizon}, hash: "{found}"'


def written(folder: Path, head: str, *entries: str) -> str:
    path = folder / "made.yaml"
    path.write_text("\n".join(["description: made", head, "tasks:", *(f"  - {{{entry}}}" for entry in entries)]))
    return str(path)


def test_quick_is_what_it_was() -> None:
    suite = load_suite("quick")
    assert "quick" in suite_names()
    assert {name: spec.hash for name, spec in suite.specs.items()} == EARLIER
    assert {spec.family for spec in suite.specs.values()} == {"quadratic", "digits_mlp", "digits_conv"}
    assert (suite.axis, suite.seeds, suite.baselines) == (None, 5, ("sgd", "sgd_momentum", "adamw", "nadam"))
    assert [(task.base, task.level) for task in suite.tasks] == [(name, None) for name in EARLIER]


def test_gradients_are_enough_for_some_learners_and_others_need_examples() -> None:
    assert kinds_of(tasks.get("quadratic")) == ("update_rule", "hypergradient", "policy")
    assert kinds_of(tasks.get("digits_mlp")) == ("update_rule", "hypergradient", "policy", "per_weight", "in_context")
    kinds = {task.name: task.kinds for task in load_suite("quick").tasks}
    assert kinds["mlp-wide"] == kinds_of(tasks.get("digits_mlp"))
    assert kinds["quadratic-noisy-20"] == kinds_of(tasks.get("quadratic"))


@pytest.mark.parametrize(("offers", "more"), [((), 0), (("model",), 0), (("stream",), 2), (("stream", "model"), 2)])
def test_kinds_follow_from_what_a_family_offers(offers, more) -> None:
    assert len(kinds_of(replace(tasks.get("quadratic"), offers=offers))) == 3 + more


def test_every_level_of_every_base_task_is_there(tmp_path) -> None:
    head = "axis: width\nhome: 1\nlevels: [0.5, 1, 2]\nbaselines: [adamw, adamw+wsd]\nseeds: 3"
    suite = load_suite(
        written(tmp_path, head, f"name: one, {fields('digits_mlp', *NET)}", f"name: two, {fields('digits_conv', '12-tanh-b48', 1, 9)}")
    )
    assert suite.axis is not None
    assert (suite.axis.name, suite.axis.home) == ("width", "x1")
    assert suite.axis.levels == (AxisLevel("x0.5", 0.5), AxisLevel("x1", 1.0), AxisLevel("x2", 2.0))
    assert (suite.name, suite.baselines, suite.seeds) == ("made", ("adamw", "adamw+wsd"), 3)
    assert [task.name for task in suite.tasks] == ["one@x0.5", "one@x1", "one@x2", "two@x0.5", "two@x1", "two@x2"]
    assert [(task.base, task.level) for task in suite.tasks[:3]] == [("one", "x0.5"), ("one", "x1"), ("one", "x2")]
    base = tasks.get("digits_mlp").sample(NET[0], 1, (40, 40))
    assert [suite.specs[f"one@{level}"] for level in ("x0.5", "x1", "x2")] == [shift(base, "width", 0.5), base, shift(base, "width", 2)]


def test_powers_of_two_are_exact_and_keep_their_spelling(tmp_path) -> None:
    suite = load_suite(written(tmp_path, "axis: loss_scale\nhome: 1\nlevels: [2^-20, 1, 2^3]", f"name: a, {fields('digits_mlp', *NET)}"))
    assert suite.axis is not None
    assert suite.axis.levels == (AxisLevel("2^-20", 2.0**-20), AxisLevel("x1", 1.0), AxisLevel("2^3", 8.0))
    assert suite.specs["a@2^-20"].values["shift.loss_scale"] == 2.0**-20


def test_noise_is_in_units_of_its_home_level(tmp_path) -> None:
    suite = load_suite(
        written(tmp_path, "axis: gradient_noise\nhome: 0.5\nlevels: [0.25, 0.5, 2]", f"name: a, {fields('digits_mlp', *NET)}")
    )
    assert suite.axis is not None
    assert suite.axis.levels == (AxisLevel("0.25", 0.5), AxisLevel("0.5", 1.0), AxisLevel("2", 4.0))
    assert [task.spec.values["shift.gradient_noise"] for task in suite.tasks] == [0.25, 0.5, 2.0]


def test_names_have_no_factor(tmp_path) -> None:
    suite = load_suite(written(tmp_path, "axis: activation\nhome: relu\nlevels: [selu, relu]", f"name: a, {fields('digits_mlp', *NET)}"))
    assert suite.axis is not None
    assert suite.axis.levels == (AxisLevel("selu", None), AxisLevel("relu", None))
    assert [task.spec.template for task in suite.tasks] == ["56-selu-b24", "56-selu-b24+activation=relu"]


SPELLED = "axis: data\nhome: digits\nlevels: [digits, tables]"
DIGITS = f"base: a, level: digits, {fields('digits_mlp', *NET)}"
TABLES = f"base: a, level: tables, {fields('tabular_regression', 'depth0-fan_out-batch20', 1, 9)}"


def test_tasks_on_other_data_are_spelled_out(tmp_path) -> None:
    suite = load_suite(written(tmp_path, SPELLED, TABLES, DIGITS))
    assert [(task.name, task.base, task.level) for task in suite.tasks] == [("a@tables", "a", "tables"), ("a@digits", "a", "digits")]
    assert suite.axis is not None
    assert suite.axis.levels == (AxisLevel("digits", None), AxisLevel("tables", None))


def test_a_base_task_that_is_not_there_at_a_level_is_refused(tmp_path) -> None:
    with pytest.raises(TaskError, match=r"suite task 'a' is missing at level 'tables'; spell it out at each \(.*made.yaml:6\)"):
        load_suite(written(tmp_path, SPELLED, DIGITS))


def test_hashes_do_not_depend_on_which_text_a_machine_has() -> None:
    family = tasks.get("text_rnn")
    spec = family.sample(family.templates("meta_test")[0], 1, (9, 9))
    elsewhere = replace(spec, values={**spec.values, "text": "another"})
    assert spec.hash != elsewhere.hash
    assert pinned_hash(spec) == pinned_hash(elsewhere)
    assert pinned_hash(spec) != pinned_hash(replace(spec, horizon=10))
    plain = tasks.get("quadratic").sample("6x6-minimum", 1, (9, 9))
    assert pinned_hash(plain) == plain.hash


def test_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="suite 'quik' is unknown; did you mean 'quick'"):
        load_suite("quik")


@pytest.mark.parametrize(
    ("head", "entry", "error", "message"),
    [
        ("", "name: a, family: quadratics, template: t, seed: 1, horizon: 9, hash: x", ConfigError, r"did you mean 'quadratic'.*yaml:4"),
        ("", "name: a, family: quadratic, template: t, seed: 1, horizon: 9, hash: x", TaskError, r"no template 't'.*yaml:4"),
        (
            "",
            "name: a, family: quadratic, template: 10x1-none, seed: 1, horizon: 9, hash: x",
            TaskError,
            r"suite task 'a' is in meta_train, a suite may only use meta_test \(.*yaml:4\)",
        ),
        (
            "",
            'name: a, family: quadratic, template: 6x6-minimum, seed: 1, horizon: 9, hash: "0000000000000000"',
            TaskError,
            r"suite task 'a' is now \w{16}, the suite was made for 0000000000000000: its family changed \(.*yaml:4\)",
        ),
        (
            "axis: width\nhome: 1\nlevels: [1, 2]",
            "name: a, " + fields("quadratic", "6x6-minimum", 1, 9),
            TaskError,
            r"quadratic has no axis 'width'.*yaml:6",
        ),
        (
            "axis: batch\nhome: 1\nlevels: [1, 900]",
            "name: a, " + fields("digits_mlp", *NET),
            TaskError,
            r"batch must be at most its 1437 training examples.*yaml:6",
        ),
        (
            "axis: activation\nhome: relu\nlevels: [relu, reli]",
            "name: a, " + fields("digits_mlp", *NET),
            TaskError,
            r"did you mean 'relu'.*yaml:6",
        ),
    ],
)
def test_bad_tasks_are_one_line_with_their_place(tmp_path, head, entry, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        load_suite(written(tmp_path, head, entry))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("head", ["", SPELLED, "axis: horizon\nhome: 1\nlevels: [1, 2]"])
def test_a_task_that_is_there_twice_is_refused(tmp_path, head) -> None:
    entry = DIGITS if head == SPELLED else f"name: a, {fields('digits_mlp', *NET)}"
    with pytest.raises(TaskError, match=r"suite task 'a.*' is there twice \(.*made.yaml:\d+\)"):
        load_suite(written(tmp_path, head, entry, entry))


def test_a_registered_file_has_a_name(tmp_path, small_suite, monkeypatch):
    monkeypatch.setattr(suites.SUITES, "_entries", dict(suites.SUITES))
    path = tmp_path / "mine.yaml"
    path.write_text(Path(small_suite).read_text())
    suites.register_suite(path)
    suites.register_suite(path)  # the same one again does nothing
    assert "mine" in suite_names()
    assert load_suite("mine").specs == load_suite(str(path)).specs
    with pytest.raises(ConfigError, match="suite 'quick' is registered already; choose another name"):
        suites.register_suite(path.rename(tmp_path / "quick.yaml"))
    with pytest.raises(ConfigError, match="must be a file that is there"):
        suites.register_suite(tmp_path / "gone.yaml")
