"""Where tasks stand on the axes, and what training sources cover."""

import pytest

from metaopt import tasks
from metaopt.errors import TaskError
from metaopt.tasks import TaskSpec, shift
from metaopt.tasks.augmentations import Bfloat16, DelayedGradients, GradientNoise, Reparametrisation
from metaopt.tasks.support import number_support, task_axes, template_support

HOME = {"loss_scale": 1.0, "parameter_scale": 1.0, "gradient_noise": 0.0, "precision": "float32"}


def spec_of(family: str, template: str) -> TaskSpec:
    return tasks.get(family).sample(template, 0, (40, 40))


def test_a_task_stands_somewhere_on_every_axis() -> None:
    spec = spec_of("digits_mlp", "48x48-silu-b48")
    assert task_axes(spec) == {
        "family": "digits_mlp", "template": "digits_mlp/48x48-silu-b48", "horizon": 40, "init_scale": spec.values["init_scale"],
        "width": 48, "depth": 2, "batch": 48, "activation": "silu", "data": "digits", "architecture": "mlp", **HOME,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("axis", "level", "value"),
    [
        ("width", 4, 192),
        ("depth", 2, 4),
        ("batch", 2, 96),
        ("activation", "tanh", "tanh"),
        ("horizon", 3, 120),
        ("loss_scale", 8, 8.0),
        ("parameter_scale", 0.5, 0.5),
        ("gradient_noise", 0.1, 0.1),
        ("precision", "bfloat16", "bfloat16"),
    ],
)
def test_a_shift_moves_its_axis_and_no_other(axis, level, value) -> None:
    spec = spec_of("digits_mlp", "48x48-silu-b48")
    before, after = task_axes(spec), task_axes(shift(spec, axis, level))
    assert after[axis] == value
    moved = {name for name in before if before[name] != after[name]}
    assert moved == {axis} | ({"template"} if axis in ("width", "depth", "batch", "activation") else set())


def test_the_initial_scale_is_that_of_the_task() -> None:
    spec = spec_of("digits_mlp", "48x48-silu-b48")
    assert task_axes(shift(spec, "init_scale", 4))["init_scale"] == 4 * spec.values["init_scale"]


@pytest.mark.parametrize(
    ("family", "data", "architecture"),
    [
        ("digits_vit", "digits", "vit"),
        ("digits_logistic", "digits", "mlp"),
        ("mnist1d_conv", "mnist1d", "conv"),
        ("digits_vae", "digits", "vae"),
        ("text_gru", "text", "gru"),
        ("text_transformer_mu", "text", "transformer"),
        ("tabular_regression", "diabetes", "mlp"),
        ("quadratic", "quadratic", "quadratic"),
        ("learned_optimizer_task", "learned_optimizer_task", "learned_optimizer_task"),
    ],
)
def test_data_and_architecture_are_named(family, data, architecture) -> None:
    axes = task_axes(spec_of(family, tasks.get(family).templates("meta_train")[0]))
    assert (axes["data"], axes["architecture"]) == (data, architecture)
    if data == family:
        assert not {"width", "depth", "batch", "activation"} & axes.keys(), "no model of a stream"


def test_tables_are_told_apart() -> None:
    found = {task_axes(spec_of("tabular_classification", t))["data"] for t in tasks.get("tabular_classification").templates("meta_train")}
    assert found <= {"breast_cancer", "wine", "iris"}
    assert len(found) > 1


def test_of_unknown_families_only_the_spec_is_known() -> None:
    spec = TaskSpec("elsewhere", "a", "meta_test", {"init_scale": 2.0, "shift.loss_scale": 4.0}, 7)
    assert task_axes(spec) == {"family": "elsewhere", "template": "elsewhere/a", "horizon": 7, "init_scale": 2.0, **HOME, "loss_scale": 4.0}
    with pytest.raises(TaskError, match="no template 'a'"):
        task_axes(TaskSpec("digits_mlp", "a", "meta_test", {}, 7))


def test_templates_cover_ranges_and_names() -> None:
    assert template_support(["digits_mlp/24-gelu-b16", "digits_mlp/32x32-relu-b64", "quadratic/10x1-none"]) == {
        "family": ["digits_mlp", "quadratic"],
        "template": ["digits_mlp/24-gelu-b16", "digits_mlp/32x32-relu-b64", "quadratic/10x1-none"],
        "width": [24, 32],
        "depth": [1, 2],
        "batch": [16, 64],
        "activation": ["gelu", "relu"],
        "data": ["digits", "quadratic"],
        "architecture": ["mlp", "quadratic"],
        "init_scale": [0.5, 2.0],
    }
    linear = template_support(["digits_mlp/linear-relu-b64"])
    assert linear is not None
    assert linear["depth"] == [0, 0]
    assert "width" not in linear


def test_what_is_not_installed_is_not_guessed() -> None:
    assert template_support(["digits_mlp/24-gelu-b16", "elsewhere/a"]) is None
    assert template_support(["digits_mlp/another"]) is None
    assert template_support(["digits_mlp/128-relu-b64"]) is None, "a template of meta_test was not trained on"


def test_strengths_cover_what_the_sources_drew() -> None:
    home = {"loss_scale": [1.0, 1.0], "parameter_scale": [1.0, 1.0], "gradient_noise": [0.0, 0.0], "precision": ["float32"]}
    assert number_support([()]) == {**home, "augmentations": []}
    scaled = Reparametrisation(scale=(0.5, 2.0))
    assert number_support([(scaled,), (scaled,)]) == {**home, "parameter_scale": [0.5, 2.0], "augmentations": ["reparametrisation"]}
    some = number_support([(Reparametrisation(scale=(2.0, 8.0)), GradientNoise(level=(0.1, 0.3))), (Bfloat16(), DelayedGradients())])
    assert some == {
        "loss_scale": [1.0, 1.0],
        "parameter_scale": [1.0, 8.0],
        "gradient_noise": [0.0, 0.3],
        "precision": ["bfloat16", "float32"],
        "augmentations": ["bfloat16", "delayed_gradients", "gradient_noise", "reparametrisation"],
    }
    assert number_support([(Bfloat16(),)])["precision"] == ["bfloat16"]
