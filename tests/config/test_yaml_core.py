"""The parser against the core schema of YAML 1.2 (section 10.3.2), where PyYAML's own resolver differs."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.config.yaml_core import parse, shorten, show_path, show_value
from metaopt.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("6.", 6.0),
        ("off", "off"),
        ("yes", "yes"),
        ("n", "n"),
        ("012", 12),
        ("0o14", 12),
        ("0xfF", 255),
        ("+7", 7),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("true", True),
        ("FALSE", False),
        ("tRuE", "tRuE"),
        ("~", None),
        ("", None),
        ("Null", None),
        ("'5'", "5"),
        ('"true"', "true"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("=", "="),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
        ("[1, 2.0, x, ~]", [1, 2.0, "x", None]),
        ("{a: {b: []}}", {"a": {"b": []}}),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    parsed = parse(text, "x").value
    assert parsed == value
    assert type(parsed) is type(value)


def test_nan_is_a_float() -> None:
    assert math.isnan(parse(".nan", "x").value)


def test_lines_are_those_of_the_keys() -> None:
    lines = parse("a: 1\n\nb:\n  # why\n  - c: 2\n    d: 3\n  - c: 4\n", "x").lines
    assert {path: lines[path] for path in [("a",), ("b",), ("b", 0, "c"), ("b", 0, "d"), ("b", 1), ("b", 1, "c")]} == {
        ("a",): 1,
        ("b",): 3,
        ("b", 0, "c"): 5,
        ("b", 0, "d"): 6,
        ("b", 1): 7,
        ("b", 1, "c"): 7,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "a is set twice, first on line 1 (f:3)"),
        ("a: {b: 1, b: 2}", "a.b is set twice, first on line 1 (f:1)"),
        ("a: &x 1\nb: *x", "aliases (*name) are not allowed in a config (f:2)"),
        (
            "!!python/object/apply:os.system [ls]",
            "tags (tag:yaml.org,2002:python/object/apply:os.system) are not allowed in a config (f:1)",
        ),
        ("a: !!int '5'", "tags (tag:yaml.org,2002:int) are not allowed in a config (f:1)"),
        ("? [a]\n: 1", "a key must be a plain word (f:1)"),
        ("[1, 2", "while parsing a flow sequence, expected ',' or ']', but got '<stream end>' (f:1)"),
        ("a: 1\n---\nb: 1", "expected a single document in the stream, but found another document (f:2)"),
        ("[" * 5000, "nested too deeply (f)"),
        ("#" * 1_000_001, "f must have at most 1000000 characters, got 1000001"),
    ],
)
def test_what_is_no_config_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert str(caught.value) == message


def test_control_characters_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^not YAML: unacceptable character #x0007.* \(f\)$"):
        parse("a: \x07", "f")


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused_in_one_line(text: str) -> None:
    try:
        message = str(parse(text, "f").lines)
    except ConfigError as error:
        message = str(error)
    assert message.isprintable()


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()))
def test_json_numbers_read_back(value: object) -> None:
    text = json.dumps(value).replace("Infinity", ".inf")
    assert parse(text, "f").value == value


def test_shown_values_are_short_printable_lines() -> None:
    assert [show_value(value) for value in (True, None, 0.0, 3, "x", [1, "a"], {"a": 1}, 10**50)] == [
        "true",
        "null",
        "0.0",
        "3",
        "'x'",
        "[1, 'a']",
        "a mapping",
        "a number of more than 40 digits",
    ]
    assert show_path(("tasks", 0, "shards")) == "tasks.0.shards"
    assert shorten("a\nb\x1b[31m" + "c" * 100) == "a b?[31m" + "c" * 49 + "..."
