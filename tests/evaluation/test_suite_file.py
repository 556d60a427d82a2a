"""The YAML of a suite: every kind of bad input is one line that says where it stands."""

import pytest

from metaopt.baselines import DEFAULT
from metaopt.errors import ConfigError
from metaopt.evaluation.suite_file import SUITE_AXES, Axis, AxisLevel, named, read_suite_file
from metaopt.tasks import SHIFTS

TASK = "tasks:\n  - {name: a, family: f, template: t, seed: 1, horizon: 9, hash: h}"
SPELLED = "tasks:\n  - {base: a, level: one, family: f, template: t, seed: 1, horizon: 9, hash: h}"


def read(folder, *lines: str):
    path = folder / "some.yaml"
    path.write_text("\n".join(["description: x", *lines]))
    return read_suite_file(path)


def task(**changed: object) -> str:
    values = {"name": "a", "family": "f", "template": "t", "seed": 1, "horizon": 9, "hash": "h", **changed}
    return "tasks:\n  - {" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"


def test_what_is_not_said_has_its_default(tmp_path) -> None:
    found = read(tmp_path, TASK)
    assert (found.description, found.axis, found.levels, found.baselines, found.seeds) == ("x", None, {}, DEFAULT, 5)
    (entry,) = found.entries
    assert (entry.base, entry.level, entry.family, entry.template, entry.seed, entry.horizon, entry.hash) == (
        "a",
        None,
        "f",
        "t",
        1,
        9,
        "h",
    )
    assert entry.place == f"{tmp_path}/some.yaml:3"


def test_an_axis_has_levels_with_names_factors_and_values(tmp_path) -> None:
    found = read(tmp_path, "axis: depth", "home: 1.0", "levels: [0.5, 1, 2^2]", TASK)
    assert found.axis == Axis("depth", "x1", (AxisLevel("x0.5", 0.5), AxisLevel("x1", 1.0), AxisLevel("2^2", 4.0)))
    assert found.levels == {"x0.5": 0.5, "x1": 1, "2^2": 4.0}


def test_a_level_of_its_own_task_is_a_name(tmp_path) -> None:
    found = read(tmp_path, "axis: architecture", "home: one", "levels: [one, two]", SPELLED)
    assert found.axis == Axis("architecture", "one", (AxisLevel("one", None), AxisLevel("two", None)))
    assert (found.entries[0].base, found.entries[0].level) == ("a", "one")


def test_names_say_the_level_where_there_is_one() -> None:
    assert (named("a", None), named("a", "x2")) == ("a", "a@x2")


def test_every_shift_is_an_axis() -> None:
    assert set(SUITE_AXES) == {*SHIFTS, "data", "architecture"}


AXIS = ("axis: width", "home: 1")
BAD = {
    "no tasks": (("seeds: 3",), "must hold 'description' and a list 'tasks' that is not empty"),
    "empty tasks": (("tasks: []",), "must hold 'description' and a list 'tasks' that is not empty"),
    "unknown key": (("seed: 3", TASK), r"suite key 'seed' is unknown; did you mean 'seeds'\?.*yaml:2"),
    "no seeds": (("seeds: 0", TASK), r"suite seeds must be a whole number >= 1, got 0 \(.*yaml:2\)"),
    "true seeds": (("seeds: true", TASK), r"suite seeds must be a whole number >= 1, got true \(.*yaml:2\)"),
    "broken seeds": (("seeds: 1.5", TASK), r"suite seeds must be a whole number >= 1, got 1.5 \(.*yaml:2\)"),
    "unknown baseline": (("baselines: [adamw, nadan]", TASK), r"baseline 'nadan' is unknown; did you mean 'nadam'\?.*yaml:2"),
    "unknown schedule": (("baselines: [adamw+wsq]", TASK), r"has no schedule 'wsq'; did you mean 'wsd'\?.*yaml:2"),
    "baseline twice": (("baselines: [sgd, adamw, sgd]", TASK), r"suite baseline 'sgd' is there twice \(.*yaml:2\)"),
    "no baselines": (("baselines: []", TASK), r"suite baselines must be a list of names that is not empty, got \[\] \(.*yaml:2\)"),
    "text as baselines": (("baselines: sgd", TASK), r"suite baselines must be a list of names that is not empty, got 'sgd' \(.*yaml:2\)"),
    "axis alone": (("axis: width", TASK), r"suite keys axis, home and levels come together, got axis only \(.*yaml:2\)"),
    "levels alone": (("levels: [1, 2]", TASK), r"suite keys axis, home and levels come together, got levels only \(.*yaml:2\)"),
    "unknown axis": (("axis: widht", "home: 1", "levels: [1, 2]", TASK), r"suite axis 'widht' is unknown; did you mean 'width'\?.*yaml:2"),
    "a list as axis": (("axis: [width]", "home: 1", "levels: [1, 2]", TASK), r"suite axis \['width'\] is unknown.*yaml:2"),
    "one level": ((*AXIS, "levels: [1]", TASK), r"suite levels must be a list of at least two, got \[1\] \(.*yaml:4\)"),
    "no list of levels": ((*AXIS, "levels: 2", TASK), r"suite levels must be a list of at least two, got 2 \(.*yaml:4\)"),
    "home is no level": ((*AXIS, "levels: [2, 4]", TASK), r"suite home 'x1' must be one of its levels x2, x4 \(.*yaml:3\)"),
    "home away from 1": (("axis: width", "home: 2", "levels: [1, 2]", TASK), r"suite home of axis width must be 1.*got x2 \(.*yaml:3\)"),
    "levels fall": ((*AXIS, "levels: [2, 1]", TASK), r"suite levels must increase, got x2, x1 \(.*yaml:4\)"),
    "level twice": ((*AXIS, "levels: [1, 1.0]", TASK), r"suite levels must increase, got x1, x1 \(.*yaml:4\)"),
    "level of 0": ((*AXIS, "levels: [0, 1]", TASK), r"suite level of axis width must be a number > 0.*got 0 \(.*yaml:4\)"),
    "infinite level": ((*AXIS, "levels: [1, .inf]", TASK), r"suite level of axis width must be a number > 0.*got inf \(.*yaml:4\)"),
    "true level": ((*AXIS, "levels: [1, true]", TASK), r"suite level of axis width must be a number > 0.*got true \(.*yaml:4\)"),
    "a word as width": ((*AXIS, "levels: [1, two]", TASK), r"suite level of axis width must be a number > 0.*got 'two' \(.*yaml:4\)"),
    "a number as name": (("axis: activation", "home: relu", "levels: [relu, 2]", TASK), r"must be a plain name, got 2 \(.*yaml:4\)"),
    "name twice": (("axis: activation", "home: a", "levels: [a, b, b]", TASK), r"suite levels must differ, got a, b, b \(.*yaml:4\)"),
    "level not spelled": (("axis: data", "home: one", "levels: [one, two]", TASK), r"must have exactly base, level, family.*yaml:6"),
    "level spelled": ((*AXIS, "levels: [1, 2]", SPELLED), r"must have exactly name, family.*yaml:6"),
    "another level": (
        ("axis: data", "home: ones", "levels: [ones, two]", SPELLED),
        r"level 'one' is unknown; did you mean 'ones'\?.*yaml:6",
    ),
    "missing field": (
        ("tasks:\n  - {name: a}",),
        r"a suite task must have exactly name, family, template, seed, horizon, hash \(.*yaml:3\)",
    ),
    "more fields": ((task(lr=1),), r"a suite task must have exactly name, family.*yaml:3"),
    "no mapping": (("tasks: [a]",), r"a suite task must have exactly name, family.*yaml:2"),
    "broken seed": ((task(seed=1.5),), r"suite task field seed must be int, got 1.5 \(.*yaml:3\)"),
    "true horizon": ((task(horizon="true"),), r"suite task field horizon must be int, got true \(.*yaml:3\)"),
    "no horizon": ((task(horizon=0),), r"suite task 'a' needs a plain name and a horizon >= 1, got 0 \(.*yaml:3\)"),
    "name is a path": ((task(name="../a"),), r"suite task '../a' needs a plain name and a horizon >= 1, got 9 \(.*yaml:3\)"),
    "name with a level": ((task(name='"a@x2"'),), r"suite task 'a@x2' needs a plain name.*yaml:3"),
    "key twice": (("seeds: 1", "seeds: 2", TASK), r"seeds is set twice, first on line 2 \(.*yaml:3\)"),
    "no YAML": (("tasks: {",), r"\(.*yaml:2\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line_with_their_place(tmp_path, case) -> None:
    lines, message = BAD[case]
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, *lines)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_bytes_that_are_no_text_are_config_errors(tmp_path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    for name in ("none.yaml", "bytes.yaml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_suite_file(tmp_path / name)


def test_a_file_that_holds_no_mapping_is_refused(tmp_path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="must hold 'description'"):
        read_suite_file(tmp_path / "list.yaml")
