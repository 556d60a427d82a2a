"""The config of a policy: chosen by its learner's kind, as strict as the other root, and unknown to it."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.config import Config, PolicyConfig, load_config, parse_config
from metaopt.config.limits import check_memory, estimate_policy_bytes
from metaopt.config.policy import Inner, Knob, PolicyOuterConfig, PPOSettings, is_policy
from metaopt.config.yaml_core import parse
from metaopt.errors import ConfigError
from metaopt.learners.policies.controlled import INNER
from metaopt.learners.policies.knobs import KNOBS, TABLES

SMALL = """\
name: small
learner:
  kind: policy
  knobs: [lr]
tasks:
  - {family: quadratic, horizon: [16, 64]}
  - family: digits_mlp
    weight: 2.0
    horizon: [32, 64]
outer:
  steps: 20
  groups_per_step: 2
  group_runs: 4
  decisions: [2, 8]
  curriculum:
    - {families: [quadratic], most_decisions: 4, until_reward: -0.5, until_frac: 0.25}
    - {until_frac: 0.5}
    - {}
  ppo:
    lr: 1e-3
"""

PAGE = Path(__file__).parents[2] / "docs" / "train-a-policy.md"
SNIPPETS = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)

# The hashes of runs that there are: a change of the schema must not make them strangers to their checkpoints.
HASHES = {
    "bptt": "ed83e33c4e04c24160d726b007164420",
    "celo2": "de2e0f5e4e3e0e44fc8c98bb5c98bb75",
    "celo2_base": "59079f296c8b16ff1e5ade142e87afd4",
    "learnable_adam": "fae26517bb59991eb16fa506b7b28040",
    "mlp_pes": "0faafe0eed5c52a23f98550fe2196a90",
    "nres": "c88046845bb1b8b8c994cc838f558a3b",
    "quickstart": "8f5aaec40f6b84e6305d7cffd7075872",
    "schedule": "8afb2a79768019558e53326ec835d9c7",
    "small_fc_mu": "d1dd68e2ac2363cce86f5d416292661a",
    "small_fc_pes": "88cd713cd35fa3d72bcad51e24be71a1",
}


def small(*overrides: str) -> PolicyConfig:
    config = parse_config(SMALL, "small.yaml", overrides)
    assert isinstance(config, PolicyConfig)
    return config


@pytest.mark.parametrize("name", sorted(HASHES))
def test_configs_that_there_were_keep_their_hashes(name: str) -> None:
    assert load_config(name).hash == HASHES[name]


def test_the_kind_of_the_learner_chooses_the_root() -> None:
    assert isinstance(load_config("quickstart"), Config)
    config = small()
    assert (config.learner.knobs, config.learner.hidden, config.learner.table) == (("lr",), 256, "wide")
    assert (config.outer.curriculum[0].most_decisions, config.outer.curriculum[2].most_decisions) == (4, None)
    assert config.outer.ppo == PPOSettings(lr=1e-3)
    assert config.artifact_name == "small"
    assert small("artifact.name=other").artifact_name == "other"
    assert not is_policy([])
    assert not is_policy({"learner": "policy"})
    assert not is_policy({"learner": {"kind": "schedule"}})


def test_it_survives_its_own_yaml() -> None:
    config = small("outer.ppo.kl_stop=0.03", "seed=4")
    again = parse_config(config.to_yaml(), "config.yaml")
    assert again.model_dump() == config.model_dump()
    assert again.hash == config.hash != small().hash
    text = config.to_yaml()
    assert '  kind: "policy"  # small.yaml:3\n' in text
    assert "    kl_stop: 0.03  # override\n" in text
    assert "    clip: 0.2  # default\n" in text
    assert "    - families: null  # default\n" in text


def test_names_are_those_of_the_learner() -> None:
    assert Knob.__args__ == KNOBS
    assert Inner.__args__ == INNER
    assert set(TABLES) == {"published", "wide"}
    assert small("learner={kind: policy}").learner.knobs == KNOBS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "learner.knobs=[lr, wd]",
            "learner.knobs.1 must be one of lr, weight_decay, epsilon, one_minus_beta2, one_minus_beta1, clip_ratio, ",
        ),
        ("learner.knobs=[lr, lr]", "learner.knobs.1 must be named once, got 'lr' again"),
        ("learner.knobs=[]", "learner.knobs must have 1 or more elements, got []"),
        ("learner.inner=[sgd]", "learner.inner.0 must be one of adamw, unitless_adam, got 'sgd'"),
        ("learner.table=wider", "learner.table must be one of published, wide, got 'wider'; did you mean wide?"),
        ("learner.hiden=3", "unknown key learner.hiden; did you mean learner.hidden?"),
        ("learner.hidden=0", "learner.hidden must be >= 1, got 0"),
        ("tasks.0.shards=2", "unknown key tasks.0.shards; allowed: family, weight, horizon, templates"),
        ("tasks.0.family=quadratics", "tasks.0.family must be one of "),
        ("tasks.1.family=quadratic", "tasks.1.family must be named once, got 'quadratic' again: give it one weight and one horizon"),
        ("tasks.0.weight=0.0", "tasks.0.weight must be > 0, got 0.0"),
        ("tasks.0.horizon=[1, 64]", "tasks.0.horizon.0 must be >= 2, the least number of decisions an episode (outer.decisions.0), got 1"),
        ("outer.decisions=[8, 2]", "outer.decisions must be [low, high] with low <= high, got [8, 2]"),
        ("outer.collection=sync", "outer.collection must be one of lockstep, async, got 'sync'"),
        (
            "outer.decisions_per_step=768",
            "outer.decisions_per_step must be null with collection lockstep, whose step is groups_per_step, got 768",
        ),
        ("outer.missing={evaluation: 0.5}", "unknown key outer.missing.evaluation"),
        ("outer.missing.knobs=1.5", "outer.missing.knobs must be <= 1, got 1.5"),
        ("outer.against=best", "outer.against must be one of default, best_constant, got 'best'"),
        ("outer.ppo.gamma=1.1", "outer.ppo.gamma must be <= 1, got 1.1"),
        ("outer.ppo.epochs=true", "outer.ppo.epochs must be a whole number, got true"),
        ("epochs=3", "unknown key epochs; did you mean outer.ppo.epochs?"),
        (
            "outer.curriculum.0.families=[digits]",
            "outer.curriculum.0.families.0 must be one of the families of tasks (quadratic, digits_mlp), got 'digits'",
        ),
        (
            "outer.curriculum.0.most_decisions=20",
            "outer.curriculum.0.most_decisions must be from 2 to 8, the decisions of the run (outer.decisions), got 20",
        ),
        (
            "outer.curriculum.0.until_frac=null",
            "outer.curriculum.0.until_frac must be a number in (0, 1) in every stage but the last, got null",
        ),
        ("outer.curriculum.1.until_frac=0.2", "outer.curriculum.1.until_frac must be > 0.25, that of the stage before, got 0.2"),
        (
            "outer.curriculum.2.until_frac=0.9",
            "outer.curriculum.2.until_frac must be null in the last stage, which ends with the run, got 0.9",
        ),
        (
            "outer.curriculum.2.until_reward=0.0",
            "outer.curriculum.2.until_reward must be null in the last stage, which ends with the run, got 0.0",
        ),
        ("outer.kind=a2c", "outer.kind must be one of ppo, got 'a2c'"),
        ("outer.estimator={name: pes}", "unknown key outer.estimator; "),
        ("artifact.warmup_frac=0.1", "unknown key artifact.warmup_frac; allowed: name"),
        ("learner.rule=momentum", "unknown key learner.rule; "),
    ],
)
def test_bad_values_are_one_line_with_their_place(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small(override)
    assert str(caught.value).startswith(message), str(caught.value)
    assert "override" in str(caught.value) or "small.yaml:" in str(caught.value)


def test_places_have_line_numbers() -> None:
    with pytest.raises(ConfigError, match=r"^tasks\.1\.weight must be > 0, got 0\.0 \(small\.yaml:8\)$"):
        parse_config(SMALL.replace("2.0", "0.0"), "small.yaml")
    with pytest.raises(ConfigError, match=r"^outer\.group_runs is missing \(small\.yaml:10\)$"):
        parse_config(SMALL.replace("  group_runs: 4\n", ""), "small.yaml")


VALUES = st.one_of(st.sampled_from(["-1", "0", ".nan", "true", "null", "[]", "{}", "abc", "1e-3", "[1, 2]", "[lr]"]), st.text(max_size=10))
KEYS = [f"outer.{name}" for name in PolicyOuterConfig.model_fields] + ["learner.knobs", "learner.hidden", "tasks", "tasks.0.horizon"]


@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_override_gives_a_config_that_reads_back_or_one_line(key: str, value: str) -> None:
    try:
        config = small(f"{key}={value}")
    except ConfigError as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 500
    else:
        assert parse_config(config.to_yaml(), "y").hash == config.hash


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_of_the_page_load(snippet: str) -> None:
    changes = {f"outer.{key}": value for key, value in parse(snippet, "snippet").value["outer"].items()}
    config = load_config("policy_small", changes)
    assert isinstance(config, PolicyConfig)
    assert config.hash != load_config("policy_small").hash


def test_the_page_has_snippets_and_the_two_bundled_configs_mean_what_they_say() -> None:
    assert len(SNIPPETS) == 2
    small, published = load_config("policy_small"), load_config("policy_published")
    assert isinstance(small, PolicyConfig)
    assert isinstance(published, PolicyConfig)
    assert (small.learner.knobs, small.learner.table, small.outer.collection) == (("lr",), "wide", "lockstep")
    assert (published.learner.knobs, published.learner.table, published.learner.hidden) == (KNOBS, "published", 256)
    assert (published.outer.decisions, published.outer.decisions_per_step, published.outer.max_staleness) == ((2, 128), 768, 4)
    assert published.outer.ppo == PPOSettings(), "the published settings are the defaults"


def test_memory_grows_with_a_group_and_an_absurd_one_is_refused() -> None:
    assert estimate_policy_bytes(small("outer.group_runs=400")) > 50 * estimate_policy_bytes(small())
    assert estimate_policy_bytes(small("outer.collection=async", "outer.decisions_per_step=1000000")) > 10 * estimate_policy_bytes(small())
    check_memory(small(), 2**28)
    with pytest.raises(ConfigError, match=r"^outer\.group_runs = 100000000 runs in 2 groups of up to 8 decisions need about [\d,.]+ GiB"):
        check_memory(small("outer.group_runs=100000000"), 2**33)
