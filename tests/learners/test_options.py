"""A rule's options are the init fields of its dataclass, and a value that an annotation does not allow is refused by name."""

import dataclasses

import pytest

from metaopt.artifacts import list_artifacts, load
from metaopt.errors import ConfigError
from metaopt.learners.update_rules import CLASSIC, RULES, get_rule


@pytest.mark.parametrize("name", list(RULES))
def test_every_init_field_is_an_option_and_everything_else_is_not(name: str) -> None:
    rule = get_rule(name)
    options = {field.name: getattr(rule, field.name) for field in dataclasses.fields(RULES[name]) if field.init}
    assert not {"name", "hyperparameters", "base_step"} & options.keys()
    assert get_rule(name, **options) == rule
    assert hash(get_rule(name, **options)) == hash(rule)
    assert rule.name == name
    assert rule.hyperparameters == (options if name in CLASSIC else {"lr": 1.0})


def test_a_list_stands_for_a_tuple_as_in_a_card() -> None:
    assert get_rule("mlp", hidden=[4, 4]) == get_rule("mlp", hidden=(4, 4))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adam", {"betta1": 0.5}, r"update rule adam has no option 'betta1'; did you mean 'beta1'\? known: lr, beta1"),
        ("adam", {"beta1": 1.0}, r"option beta1 of update rule adam: Input should be less than 1, got 1\.0"),
        ("adam", {"lr": float("nan")}, "option lr of update rule adam: .*finite.*, got nan"),
        ("adam", {"lr": True}, "option lr of update rule adam: Input should be a valid number, got True"),
        ("adam", {"lr": object()}, "option lr of update rule adam: .* not JSON serializable, got <object"),
        ("mlp", {"hidden": ()}, "option hidden of update rule mlp: .* at least 1 item"),
        ("mlp", {"hidden": [0]}, "option hidden of update rule mlp: .* greater than or equal to 1"),
        ("celo2_base", {"output": "grft"}, "option output of update rule celo2_base: Input should be 'graft' or 'rms', got 'grft'"),
        ("celo2_base", {"base_step": 0.1}, "update rule celo2_base has no option 'base_step'"),
    ],
)
def test_a_bad_option_is_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_rule(name, **options)


def test_bundled_artifacts_still_name_rules_that_exist() -> None:
    for row in list_artifacts():
        if row["kind"] == "update_rule":
            card = load(row["path"]).card
            assert get_rule(card["rule"]["name"], **card["rule"]["options"]).init_theta(0).keys() == load(row["path"]).weights.keys()
