"""Inside or outside of what a card says."""

import pytest

from metaopt import artifacts, tasks
from metaopt.evaluation.support import inside_support, planning_horizon, training_support
from metaopt.tasks import TaskSpec, shift
from metaopt.tasks.support import number_support, template_support

TEMPLATES = ["digits_mlp/24-gelu-b16", "digits_mlp/64-relu-b32", "quadratic/10x1-none"]
SHAPES = {"width": [24, 64], "depth": [1, 1], "batch": [16, 32], "activation": ["gelu", "relu"], "init_scale": [0.5, 2.0]}
OLD = {"family": ["digits_mlp", "quadratic"], "template": TEMPLATES, "horizon": [50, 300]}


def card(support: dict) -> dict:
    return {"training": {"support": support}}


def task(template: str = "56-selu-b24", family: str = "digits_mlp", horizon: int = 100, init_scale: float = 1.0) -> TaskSpec:
    spec = tasks.get(family).sample(template, 0, (horizon, horizon))
    return TaskSpec(family, template, spec.split, {**spec.values, "init_scale": init_scale}, horizon)


def test_an_old_card_is_filled_up_from_its_templates() -> None:
    support = training_support(card(OLD))
    assert support == {**OLD, **SHAPES, "data": ["digits", "quadratic"], "architecture": ["mlp", "quadratic"], **number_support([()])}


def test_an_old_card_tells_its_augmentations_in_its_own_words() -> None:
    support = training_support(card({**OLD, "reparametrisation": [0.2, 5.0]}))
    assert (support["parameter_scale"], support["augmentations"], support["gradient_noise"]) == ([0.2, 5.0], ["reparametrisation"], [0, 0])
    assert "reparametrisation" not in support
    names = ["gradient_noise", "bfloat16"]
    support = training_support(card({**OLD, "augmentation": names}))
    assert (support["augmentations"], support["precision"]) == (names, ["bfloat16", "float32"])
    assert "gradient_noise" not in support, "nobody knows how much"
    assert "augmentation" not in support


def test_a_new_card_is_taken_at_its_word() -> None:
    told = {**(template_support(TEMPLATES) or {}), "horizon": [50, 300], **number_support([()]), "width": [1, 2]}
    assert training_support(card(told)) == told


def test_no_meta_training_no_support() -> None:
    assert training_support(card({})) == {}
    for axis in (None, "width"):
        assert inside_support(None, task(), axis) is None
        assert inside_support(card({}), task(), axis) is None


def test_the_planning_horizon_is_the_longest_horizon_or_a_shorter_window() -> None:
    assert planning_horizon(card(OLD)) == 300
    assert planning_horizon({"training": {"support": OLD, "planning_horizon": 25}}) == 25
    assert planning_horizon(card({})) is planning_horizon(None) is None
    assert planning_horizon({"training": {}}) is None


def test_a_card_without_templates_says_what_it_says() -> None:
    few = card({"horizon": [50, 300]})
    assert training_support(few) == {"horizon": [50, 300]}
    assert inside_support(few, task(), "horizon") is True
    assert inside_support(few, task(horizon=301), "horizon") is False
    assert inside_support(few, task(), "loss_scale") is None
    assert inside_support(few, task(), None) is None
    assert inside_support(few, task(horizon=301), None) is False, "outside on one axis is outside"


@pytest.mark.parametrize("name", ["celo2-base", "learnable-adam"])
def test_the_shipped_artifacts_have_every_axis(name) -> None:
    support = training_support(artifacts.load(name).card)
    assert support["width"] == [16, 64]
    assert support["activation"] == ["gelu", "relu", "sigmoid", "silu", "tanh"]
    assert support["parameter_scale"] == ([0.5, 2.0] if name == "celo2-base" else [1.0, 1.0])
    spec = task("48x48-silu-b48")
    assert inside_support(artifacts.load(name).card, spec, None) is True
    assert inside_support(artifacts.load(name).card, shift(spec, "width", 4), None) is False


@pytest.mark.parametrize(
    ("axis", "inside", "outside"),
    [
        ("width", 64 / 56, 65 / 56),
        ("batch", 32 / 24, 33 / 24),
        ("horizon", 3, 3.01),
        ("init_scale", 2, 2.001),
        ("activation", "relu", "tanh"),
        ("loss_scale", 1, 1.001),
        ("parameter_scale", 0.2, 0.199),
        ("gradient_noise", 0, 1e-4),
        ("precision", "float32", "bfloat16"),
    ],
)
def test_both_ends_of_a_range_are_inside(axis, inside, outside) -> None:
    known = card({**OLD, "reparametrisation": [0.2, 5.0]})
    assert inside_support(known, shift(task(), axis, inside), axis) is True
    assert inside_support(known, shift(task(), axis, outside), axis) is False


def test_on_an_axis_only_that_axis_counts() -> None:
    far = task("48x48-silu-b48", horizon=10_000)  # depth, activation, batch and horizon are outside
    assert inside_support(card(OLD), far, "width") is True
    assert inside_support(card(OLD), far, "data") is True
    assert inside_support(card(OLD), far, None) is False


def test_data_and_architecture_are_axes() -> None:
    conv, faces = tasks.get("digits_conv"), tasks.get("faces_mlp")
    spec = conv.sample("8x16-relu-b32", 0, (100, 100))
    assert inside_support(card(OLD), spec, "data") is True
    assert inside_support(card(OLD), spec, "architecture") is False
    other = faces.sample(faces.templates("meta_test")[0], 0, (100, 100))
    assert inside_support(card(OLD), other, "data") is False
    assert inside_support(card(OLD), other, "architecture") is True


@pytest.mark.parametrize(
    "change", [{"template": "48-silu-b128+activation=tanh"}, {"horizon": 301}, {"init_scale": 2.1}, {"template": "128-relu-b64"}]
)
def test_without_an_axis_one_outside_is_enough(change) -> None:
    spec = task("56-selu-b24")
    inside = TaskSpec(spec.family, "56-selu-b24+activation=relu", spec.split, spec.values, spec.horizon)
    assert inside_support(card(OLD), inside, None) is True
    fields = {"template": inside.template, "horizon": 100, "init_scale": 1.0, **change}
    split = "meta_train" if fields["template"].startswith("48-") else "meta_test"
    outside = TaskSpec(spec.family, fields["template"], split, {"init_scale": fields["init_scale"]}, fields["horizon"])
    assert inside_support(card(OLD), outside, None) is False


def test_an_unknown_family_is_outside_and_axes_that_nobody_has_do_not_count() -> None:
    conv = tasks.get("digits_conv").sample("12-tanh-b48", 0, (100, 100))
    assert inside_support(card(OLD), conv, None) is False
    bowl = tasks.get("quadratic").sample("20x1-gradient", 0, (100, 100))
    assert inside_support(card(OLD), bowl, None) is True, "a bowl has no width"
    assert inside_support(card(OLD), bowl, "width") is None


def test_families_that_are_not_installed_leave_their_axes_open() -> None:
    known = card({**OLD, "family": ["digits_mlp", "elsewhere"], "template": [*TEMPLATES[:2], "elsewhere/a"]})
    assert "width" not in training_support(known)
    assert inside_support(known, task(), "width") is None
    assert inside_support(known, task(), "horizon") is True
    assert inside_support(known, task(), None) is None
    assert inside_support(known, task(horizon=1000), None) is False
    assert inside_support(card(OLD), TaskSpec("elsewhere", "a", "meta_test", {}, 100), "width") is None
