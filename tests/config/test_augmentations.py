"""The section of augmentations: shorthands, a preset, options with ranges, and errors that name the key."""

import pytest

from metaopt.config import Config, load_config, parse_config
from metaopt.errors import ConfigError
from metaopt.tasks.augmentations import AUGMENTATIONS, PRESETS, DelayedGradients, EvolutionGradients, ReducedBatch, Reparametrisation


def load(**sections: object) -> Config:
    return load_config("quickstart", {f"augmentations.{name}": value for name, value in sections.items()})


def test_nothing_unless_asked_for() -> None:
    assert load().augmentations.choices == ()
    assert load(reparametrisation=None, preset=None).augmentations.choices == ()


def test_a_list_is_a_global_scale_that_is_always_on() -> None:
    found = load(reparametrisation=[0.1, 10])
    assert found.augmentations.reparametrisation == (0.1, 10.0)
    assert found.augmentations.choices == (Reparametrisation(1.0, "global", (0.1, 10.0)),)


def test_sections_are_the_fields_of_the_dataclasses() -> None:
    found = load(
        delayed_gradients={"probability": 0.5, "steps": [2, 4]},
        reparametrisation={"level": "element"},
        reduced_batch={},
        bfloat16={"probability": 0.0},
    ).augmentations
    assert found.choices == (ReducedBatch(), Reparametrisation(level="element"), DelayedGradients(0.5, (2, 4)))
    for name, kind in AUGMENTATIONS.items():
        assert load(**{name: {}}).augmentations.choices == (kind(),)


def test_a_section_replaces_that_of_the_preset() -> None:
    assert load(preset="velo").augmentations.choices == PRESETS["velo"]
    changed = load(preset="velo", evolution_gradients={"probability": 0.5, "pairs": [1, 2]}, bfloat16={"probability": 0.0}).augmentations
    expected = [a for a in PRESETS["velo"] if a.name != "bfloat16"]
    expected[1] = EvolutionGradients(0.5, pairs=(1, 2))
    assert changed.choices == tuple(expected)


def test_the_resolved_config_reads_back_to_the_same_hash() -> None:
    for sections in ({"preset": "velo", "gradient_noise": {"level": [0.1, 0.2]}}, {"reparametrisation": [0.5, 2]}, {"reduced_batch": {}}):
        config = load(**sections)
        again = parse_config(config.to_yaml(), "again.yaml")
        assert again.hash == config.hash
        assert again.augmentations == config.augmentations
        assert config.hash != load().hash


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"preset": "vleo"}, "augmentations.preset must be one of velo, got 'vleo'; did you mean velo?"),
        ({"reparametrisation": [10, 0.1]}, "augmentations.reparametrisation must be [low, high] with low <= high, got [10.0, 0.1]"),
        ({"reparametrisation": [0, 1]}, "augmentations.reparametrisation.0 must be > 0, got 0"),
        ({"reparametrisation": [1, 2, 3]}, "augmentations.reparametrisation must have"),
        ({"reparametrisation": {"level": "layer"}}, "augmentations.reparametrisation.level must be one of global, tensor, element, any"),
        ({"reduced_batch": 0.5}, "augmentations.reduced_batch must be a mapping of keys to values, got 0.5"),
        ({"reduced_batch": {"fraction": [0.5, 1.5]}}, "augmentations.reduced_batch.fraction.1 must be <= 1, got 1.5"),
        ({"reduced_batch": {"probability": -0.1}}, "augmentations.reduced_batch.probability must be >= 0, got -0.1"),
        ({"reduced_batch": {"fractoin": [0.5, 1]}}, "fractoin; did you mean augmentations.reduced_batch.fraction?"),
        ({"delayed_gradients": {"steps": [4, 2]}}, "delayed_gradients.steps must be [low, high] with low <= high, got [4, 2]"),
        ({"delayed_gradients": {"steps": [1.5, 2]}}, "augmentations.delayed_gradients.steps.0 must be a whole number"),
        ({"delayd_gradients": {}}, "unknown key augmentations.delayd_gradients; did you mean augmentations.delayed_gradients?"),
    ],
)  # fmt: skip
def test_bad_sections_are_named(sections: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**sections)
    assert message in str(caught.value)
