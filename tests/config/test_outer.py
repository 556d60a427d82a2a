"""The outer loop's sections: borders and stages by hand, round trips, and the snippets of the docs."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.config import load_config, parse_config
from metaopt.config.outer import OuterConfig, PhaseConfig
from metaopt.config.yaml_core import parse
from metaopt.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "meta-training.md"
SNIPPETS = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
FULL = {
    "outer.phases": [{"share": 2.0, "train": ["w*", "b*"]}, {"lr": 1e-4, "horizon": [30, 60]}],
    "outer.curriculum": [{"from_frac": 0, "horizon_frac": 0.5, "template_frac": 0.5}, {"from_frac": 0.5}],
    "outer.average": {"decay": 1.0},
    "outer.shards_per_step": 2,
    "outer.mixing": "equal_time",
    "outer.costs": {"quadratic": 1.0, "digits_mlp": 4.0},
    "validation": {"every_steps": 5, "patience": 3, "tasks": ["quadratic"]},
}


def test_a_resolved_config_loads_back_to_the_same_hash() -> None:
    config = load_config("quickstart", FULL)
    again = parse_config(config.to_yaml(), "config.yaml")
    assert again.model_dump() == config.model_dump()
    assert again.hash == config.hash != load_config("quickstart").hash
    assert again.outer.phases[1] == PhaseConfig(share=1.0, train=("*",), lr=1e-4, horizon=(30, 60))


def test_nothing_of_it_is_on_by_default() -> None:
    config = load_config("quickstart")
    assert (config.validation, config.outer.average, config.outer.costs) == (None, None, None)
    assert (config.outer.phases, config.outer.curriculum, config.outer.mixing) == ((), (), "equal_shards")
    assert config.outer.borders == (300,)


shares = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(shares, st.integers(500, 10_000))
def test_borders_ascend_to_the_last_step_and_follow_the_shares(share: list[float], steps: int) -> None:
    plain = load_config("quickstart").outer
    outer = plain.model_copy(update={"steps": steps, "phases": tuple(PhaseConfig(share=value) for value in share)})
    borders = outer.borders
    assert borders[-1] == steps
    assert all(a < b for a, b in itertools.pairwise((0, *borders)))
    for value, (begin, end) in zip(share, itertools.pairwise((0, *borders)), strict=True):
        assert abs((end - begin) - steps * value / sum(share)) <= 1.5


def test_a_stage_begins_at_the_first_step_of_its_part() -> None:
    outer = load_config("quickstart", FULL | {"outer.steps": 7}).outer
    assert [outer.stage_at(step) for step in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_of_the_page_load(snippet: str) -> None:
    tree = parse(snippet, "snippet").value
    changes = {f"outer.{key}": value for key, value in tree.pop("outer", {}).items()} | tree
    config = load_config("quickstart", changes)
    assert config.hash != load_config("quickstart").hash
    assert isinstance(config.outer, OuterConfig)


def test_the_page_has_a_snippet_for_each_section() -> None:
    text = "\n".join(SNIPPETS)
    assert all(f"{key}:" in text for key in ("phases", "curriculum", "average", "mixing", "validation"))


def test_an_unknown_family_of_validation_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^validation\.tasks\.1 must be one of .*, got 'quadratics'; did you mean quadratic\? "):
        load_config("quickstart", {"validation": {"every_steps": 5, "tasks": ["digits_mlp", "quadratics"]}})
