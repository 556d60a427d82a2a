"""Loading, overriding, origins and the hash. The messages of bad configs are in tests/integration/test_bad_input.py."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.config import Config, PolicyConfig, bundled_configs, load_config, parse_config
from metaopt.errors import ConfigError

SMALL = """\
name: small
learner: {rule: celo2_base}
tasks:
  - {family: quadratic, horizon: [10, 20]}
outer:
  steps: 3
  shard_particles: 2
  estimator: {name: pes, window: 5}
  optimizer: {lr: 1e-3}
"""


@pytest.mark.parametrize("name", sorted(bundled_configs()))
def test_bundled_configs_load_and_name_a_learner(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    if not isinstance(config, PolicyConfig):
        assert config.learner.build().rule.name == config.learner.rule


def test_bundled_configs_are_the_four_of_the_manual() -> None:
    assert {"quickstart", "celo2_base", "mlp_pes", "learnable_adam"} <= set(bundled_configs())


def test_values_keep_their_kinds() -> None:
    config = parse_config(SMALL, "small.yaml")
    assert config.outer.optimizer.lr == 1e-3
    assert config.tasks[0].horizon == (10, 20)
    assert (config.seed, config.outer.shards_per_step, config.compile, config.artifact_name) == (0, None, False, "small")


def test_a_path_wins_over_a_bundled_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text(SMALL)
    assert load_config("quickstart").name == "small"


def test_overrides_reach_everything() -> None:
    config = parse_config(
        SMALL,
        "small.yaml",
        [
            "outer.steps=7",
            "tasks.0.shards=2",
            "outer.estimator={name: truncated_es, sigma: 5e-2, window: 4}",
            "augmentations.reparametrisation=[0.1, 10]",
            "artifact.name=other",
        ],
        {"seed": 9},
    )
    assert (config.outer.steps, config.tasks[0].shards, config.seed, config.artifact_name) == (7, 2, 9, "other")
    assert (config.outer.estimator.name, config.outer.estimator.sigma) == ("truncated_es", 0.05)
    assert config.augmentations.reparametrisation == (0.1, 10.0)


def test_overrides_from_python_are_plain_values() -> None:
    by_name = parse_config(SMALL, "x", {"outer.steps": 7, "tasks.0.horizon": (10, 30)})
    assert by_name.hash == parse_config(SMALL, "x", ["outer.steps=7", "tasks.0.horizon=[10, 30]"]).hash
    with pytest.raises(ConfigError, match=r"^outer\.steps must be a number, a text, a list or a mapping, got "):
        parse_config(SMALL, "x", {"outer.steps": object()})


def test_order_of_overrides_does_not_matter() -> None:
    words = ["outer.steps=7", "seed=3", "tasks.0.shards=2"]
    assert parse_config(SMALL, "x", words).hash == parse_config(SMALL, "x", words[::-1]).hash


def test_hash_counts_content_only() -> None:
    base = parse_config(SMALL, "x")
    assert base.hash == parse_config("# a comment\n" + SMALL + "seed: 0\n", "elsewhere.yaml").hash
    assert base.hash == parse_config(SMALL, "x", ["outer.steps=3"]).hash
    assert base.hash != parse_config(SMALL, "x", ["outer.steps=4"]).hash
    assert len(base.hash) == 32


def test_resolved_yaml_names_origins_and_reads_back() -> None:
    config = parse_config(SMALL, "small.yaml", ["outer.steps=7"], {"seed": 9})
    text = config.to_yaml()
    assert 'name: "small"  # small.yaml:1\n' in text
    assert "seed: 9  # --seed\n" in text
    assert "  steps: 7  # override\n" in text
    assert "    horizon: [10, 20]  # small.yaml:4\n" in text
    assert "    sigma: 0.01  # default\n" in text
    assert "  - family: " in text
    again = parse_config(text, "config.yaml")
    assert again.hash == config.hash
    assert again.model_dump() == config.model_dump()


@pytest.mark.parametrize("name", ["a", "A-b_c.d", "7", "a" * 100, "v1.2."])
def test_names_that_are_safe_in_paths(name: str) -> None:
    assert parse_config(SMALL, "x", {"name": name}).artifact_name == name


@pytest.mark.parametrize("name", ["", ".a", "..", "a..b", "a/b", "a\\b", "-a", "a b", "a\n", "a\x00", "é", "a" * 101, "~", "a:b"])
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^name must be 1 to 100 letters, "):
        parse_config(SMALL, "x", {"name": name})


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_config(SMALL, "x").outer.steps = 5  # type: ignore[misc]


def _paths(tree: object, path: str = "") -> list[str]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, child in items for found in (f"{path}.{key}".lstrip("."), *_paths(child, f"{path}.{key}"))]


KEYS = _paths(json.loads(parse_config(SMALL, "x").model_dump_json()))
VALUES = st.one_of(
    st.sampled_from(
        ["-1", "0", ".nan", ".inf", "true", "null", "[]", "{}", "abc", "1e-3", "[1, 2]", "{name: pes}", "1e400", "9" * 50, "''"]
    ),
    st.text(max_size=20),
)


@given(key=st.one_of(st.sampled_from(KEYS), st.text(min_size=1, max_size=20)), value=VALUES)
def test_any_override_gives_a_config_that_reads_back_or_one_line(key: str, value: str) -> None:
    try:
        config = parse_config(SMALL, "x", [f"{key}={value}"])
    except ConfigError as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 500
    else:
        assert parse_config(config.to_yaml(), "y").hash == config.hash


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(list(Config.model_fields)), inner)),
        max_leaves=20,
    )
)
def test_any_tree_is_refused_in_one_line(tree: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(json.dumps(tree), "x")
    assert str(caught.value).isprintable()
