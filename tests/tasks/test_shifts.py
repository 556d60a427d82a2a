"""Shifts: what they change, what they leave alone, and what they refuse."""

import pickle

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import TaskError
from metaopt.tasks import SHIFTS, TaskSpec, shift
from metaopt.tasks.augmentations import Bfloat16
from metaopt.tasks.families.digits import DIGITS_MLP
from metaopt.tasks.models import MLP
from metaopt.testing import check_task

KEY = seeds.key("run")
NUMBERS = ("loss_scale", "parameter_scale", "gradient_noise")
LEVELS = {"loss_scale": 1024, "parameter_scale": 0.125, "gradient_noise": 0.5, "precision": "bfloat16"}


def home(family: str = "digits_mlp", template: str = "48x48-silu-b48", horizon: int = 40) -> TaskSpec:
    return tasks.get(family).sample(template, 0, (horizon, horizon))


def first(family: str, split: str = "meta_test") -> TaskSpec:
    return home(family, tasks.get(family).templates(split)[0])


def test_home_is_the_spec_itself() -> None:
    for spec in (home(), shift(home(), "loss_scale", 2)):
        for axis in SHIFTS:
            if axis in ("loss_scale", "gradient_noise", "activation", "precision"):
                continue
            assert shift(spec, axis, 1) is spec
            assert shift(spec, axis, 1.0) is spec
        assert shift(spec, "activation", "silu") is spec
        assert shift(spec, "precision", "float32") is spec
        assert shift(spec, "gradient_noise", 0) is spec
    assert shift(home(), "gradient_noise", 1) != home(), "every level of noise is noise"


@pytest.mark.parametrize(
    ("axis", "level", "template", "sizes", "activation", "batch"),
    [
        ("width", 4, "48x48-silu-b48+width=192", (64, 192, 192, 10), "silu", 48),
        ("width", 0.26, "48x48-silu-b48+width=12", (64, 12, 12, 10), "silu", 48),
        ("depth", 0.5, "48x48-silu-b48+depth=1", (64, 48, 10), "silu", 48),
        ("depth", 2.0, "48x48-silu-b48+depth=4", (64, 48, 48, 48, 48, 10), "silu", 48),
        ("batch", 1 / 16, "48x48-silu-b48+batch=3", (64, 48, 48, 10), "silu", 3),
        ("activation", "tanh", "48x48-silu-b48+activation=tanh", (64, 48, 48, 10), "tanh", 48),
    ],
)
def test_static_shifts_set_one_axis_of_the_shape(axis, level, template, sizes, activation, batch) -> None:
    spec = home()
    shifted = shift(spec, axis, level)
    assert shifted == TaskSpec(spec.family, template, spec.split, spec.values, spec.horizon)
    task = tasks.build(shifted)
    assert isinstance(task.program.model, MLP)
    assert (task.program.model.sizes, task.program.model.activation, task.program.stream.batch_size) == (sizes, activation, batch)
    assert task.numbers == tasks.build(spec).numbers


def test_widths_are_multiples_of_the_heads() -> None:
    spec = next(
        s
        for template in tasks.get("text_transformer").templates("meta_train")
        if tasks.build(s := home("text_transformer", template)).program.model.heads == 4
    )
    width = tasks.build(spec).program.model.width
    shifted = shift(spec, "width", 1.4)
    model = tasks.build(shifted).program.model
    assert model.width % 4 == 0
    assert abs(model.width - 1.4 * width) <= 2
    with pytest.raises(TaskError, match="width must be a multiple of its 4 heads, got 13"):
        tasks.build(TaskSpec(spec.family, f"{spec.template}+width=13", spec.split, spec.values, 5))


def test_axes_have_one_name_whatever_a_family_calls_them() -> None:
    for family, attribute in (("text_rnn", "hidden"), ("text_transformer", "width"), ("digits_vit", "width")):
        spec = first(family)
        one, two = tasks.build(spec).program.model, tasks.build(shift(spec, "width", 2)).program.model
        assert getattr(two, attribute) == 2 * getattr(one, attribute)
    for family, attribute in (
        ("text_rnn", "layers"),
        ("text_transformer", "layers"),
        ("digits_vit", "layers"),
        ("digits_resnet", "blocks"),
    ):
        spec = first(family)
        one, two = tasks.build(spec).program.model, tasks.build(shift(spec, "depth", 3)).program.model
        assert getattr(two, attribute) == 3 * getattr(one, attribute)


def test_shifts_compose_in_any_order() -> None:
    steps = [("width", 2), ("batch", 2), ("activation", "tanh"), ("depth", 2)]
    steps += [("horizon", 2), ("init_scale", 2), ("loss_scale", 4), ("parameter_scale", 4)]
    one = two = home()
    for axis, level in steps:
        one = shift(one, axis, level)
    for axis, level in reversed(steps):
        two = shift(two, axis, level)
    assert one.hash == two.hash
    assert one.template == "48x48-silu-b48+width=96+depth=4+batch=96+activation=tanh"
    assert one.horizon == 2 * home().horizon
    assert one.values["init_scale"] == 2 * home().values["init_scale"]
    task = tasks.build(one)
    assert (float(task.numbers["loss_scale"]), float(task.numbers["reparametrisation"])) == (4.0, 4.0)
    for axis, level in steps:
        with pytest.raises(TaskError, match=f"{axis} is shifted .* already, got level .*; shift each axis once"):
            shift(one, axis, level)


@pytest.mark.parametrize("axis", SHIFTS)
def test_shifted_specs_are_data(axis) -> None:
    level = {"activation": "tanh", "precision": "bfloat16"}.get(axis, 2)
    shifted = shift(home(), axis, level)
    assert TaskSpec.from_json(shifted.to_json()) == shifted
    assert pickle.loads(pickle.dumps(shifted)) == shifted  # noqa: S301 - our own bytes
    assert shifted.hash != home().hash
    one, two = tasks.build(shifted), tasks.build(TaskSpec.from_json(shifted.to_json()))
    assert one.program == two.program
    assert one.numbers == two.numbers
    whole = {"activation": "tanh", "precision": "bfloat16"}.get(axis, 2.0)
    assert shift(home(), axis, whole).to_json() == shifted.to_json(), "2 and 2.0 are one level"


@pytest.mark.parametrize("axis", ["horizon", "init_scale", *NUMBERS])
def test_levels_of_a_number_share_a_program_and_stack(axis) -> None:
    built = [tasks.build(shift(home(), axis, level)) for level in (0.25, 0.5, 8)]
    assert len({task.program for task in built}) == 1
    stacked = tasks.stack_tasks(built)
    assert all(len(value) == 3 for value in stacked.numbers.values())
    plain = tasks.build(home()).program
    assert (built[0].program == plain) == (axis in ("horizon", "init_scale"))


@pytest.mark.parametrize("j", [-20, -3, 7, 20])
@pytest.mark.parametrize(
    ("family", "rule", "options"),
    [("digits_mlp", "lion", {}), ("quadratic", "lion", {}), ("quadratic", "adam", {"eps": 0.0})],  # pixels that are never set: 0 / 0
)
def test_a_power_of_two_in_the_loss_changes_no_bit_for_a_rule_that_ignores_units(family, rule, options, j) -> None:
    spec = first(family)
    learner = learners.get(rule, lr=1e-3, **options)
    plain = inner.run(learner, {}, [tasks.build(spec)], [3], 20, 5)
    scaled = inner.run(learner, {}, [tasks.build(shift(spec, "loss_scale", 2.0**j))], [3], 20, 5)
    assert torch.equal(plain.eval_loss, scaled.eval_loss)
    assert torch.equal(plain.normalised, scaled.normalised)
    assert torch.equal(2.0**j * plain.loss, scaled.loss)
    assert float(plain.eval_loss[-1]) < float(plain.eval_loss[0])


def test_the_scaled_loss_scales_loss_and_gradient_and_keeps_the_cap() -> None:
    plain, scaled = tasks.build(home()), tasks.build(shift(home(), "loss_scale", 8))
    params, batch = plain.init(KEY), plain.batch(KEY, torch.tensor(0))
    assert torch.equal(scaled.loss(params, batch), 8 * plain.loss(params, batch))
    grads, loss, _ = plain.gradients(params, batch, {})
    more, large, _ = scaled.gradients(params, batch, {})
    assert torch.equal(large, 8 * loss)
    assert all(torch.equal(more[name], 8 * grads[name]) for name in grads)
    assert torch.equal(scaled.normalise(8 * loss), plain.normalise(loss))
    assert float(scaled.normalise(torch.tensor(float("nan")))) == plain.program.cap == scaled.program.cap


def test_a_program_with_gradients_of_its_own_is_scaled_too() -> None:
    noisy = shift(home(), "gradient_noise", 0.5)
    one, two = tasks.build(noisy), tasks.build(shift(noisy, "loss_scale", 4))
    params, batch = one.init(KEY), one.batch(KEY, torch.tensor(0))
    grads, more = one.gradients(params, batch, {})[0], two.gradients(params, batch, {})[0]
    assert all(torch.equal(more[name], 4 * grads[name]) for name in grads)


@pytest.mark.parametrize("s", [0.125, 4.0])
def test_weights_in_units_of_s_follow_gradient_descent_at_a_step_over_s_squared(s) -> None:
    spec = home()
    plain, scaled = tasks.build(spec), tasks.build(shift(spec, "parameter_scale", s))
    params, small = plain.init(KEY), scaled.init(KEY)
    assert all(torch.equal(s * small[name], params[name]) for name in params)
    one = inner.run(learners.get("sgd", lr=0.125), {}, [plain], [3], 20, 5)
    two = inner.run(learners.get("sgd", lr=0.125 / s**2), {}, [scaled], [3], 20, 5)
    assert torch.equal(one.eval_loss, two.eval_loss), "powers of two are exact"


def test_noise_has_the_standard_deviation_asked_for() -> None:
    spec = home()
    plain = tasks.build(spec)
    params = plain.init(KEY)
    rms = {}
    for level in (0.25, 4.0):
        noisy = tasks.build(shift(spec, "gradient_noise", level))
        batch = noisy.batch(KEY, torch.tensor(0))
        exact, seen = plain.gradients(params, batch, {})[0], noisy.gradients(params, batch, {})[0]
        size = torch.cat([g.flatten() for g in exact.values()]).square().mean().sqrt()
        rms[level] = float((torch.cat([(seen[name] - exact[name]).flatten() for name in exact]) / size).square().mean().sqrt())
    assert rms[0.25] == pytest.approx(0.25, rel=0.05)  # 6,000 weights: a standard error of 1 %
    assert rms[4.0] == pytest.approx(16 * rms[0.25], rel=1e-3), "the same draws, larger"


def test_bfloat16_is_that_of_the_augmentation() -> None:
    task, want = tasks.build(shift(home(), "precision", "bfloat16")), Bfloat16().apply(tasks.build(home()), 0)
    assert task.program == want.program
    assert task.numbers == want.numbers


@pytest.mark.parametrize("axis", LEVELS)
@pytest.mark.parametrize("family", ["digits_mlp", "quadratic", "text_gru"])
def test_shifted_numbers_make_sound_tasks(family, axis) -> None:
    skip = {"learnable"} if axis in ("parameter_scale", "loss_scale") else set()  # its rates are those of home
    check_task(tasks.build(shift(first(family), axis, LEVELS[axis])), skip=skip)


@pytest.mark.parametrize("axis", ["width", "depth", "batch"])
@pytest.mark.parametrize("family", ["digits_mlp", "digits_conv", "digits_resnet", "digits_vit", "text_gru"])
def test_shifted_shapes_make_sound_tasks(family, axis) -> None:
    check_task(tasks.build(shift(first(family), axis, 2)), skip={"learnable"})


def test_all_axes_together_make_a_sound_task() -> None:
    spec = home()
    for axis in SHIFTS:
        spec = shift(spec, axis, {"activation": "tanh", "precision": "bfloat16", "gradient_noise": 0.1}.get(axis, 2))
    check_task(tasks.build(spec))


def test_shapes_of_meta_training_are_refused() -> None:
    spec = home(template="32x32x32-tanh-b64")  # 24-gelu-b16 and 40x40-tanh-b32 are of meta_train and meta_valid
    near = shift(shift(spec, "width", 40 / 32), "batch", 0.5)
    with pytest.raises(TaskError, match="'40x40-tanh-b32' of meta_valid; choose another level"):
        shift(near, "depth", 2 / 3)
    with pytest.raises(TaskError, match="'32-relu-b64' of meta_train"):
        shift(home(template="128-relu-b64"), "width", 0.25)
    with pytest.raises(TaskError, match="'32-relu-b64' of meta_train"):
        DIGITS_MLP.build(TaskSpec("digits_mlp", "128-relu-b64+width=32", "meta_test", {"init_scale": 1.0}, 5))


@pytest.mark.parametrize(
    ("family", "axis", "level", "message"),
    [
        ("digits_mlp", "wide", 2, "shift axis 'wide' is unknown; did you mean 'width'"),
        ("digits_mlp", "width", 1e-3, "digits_mlp width 128 times 0.001 rounds to 0"),
        ("digits_mlp", "width", 1.001, "digits_mlp width 128 times 1.001 rounds to 128"),
        ("digits_mlp", "depth", 0.4, "digits_mlp depth 1 times 0.4 rounds to 0"),
        ("digits_mlp", "depth", 0, "digits_mlp depth must be a number > 0 in the range of float32, got 0"),
        ("digits_mlp", "batch", 100, "digits_mlp batch must be at most its 1437 training examples, got 6400"),
        ("digits_mlp", "activation", "rely", "digits_mlp activation 'rely' is unknown; did you mean 'relu'"),
        ("digits_mlp", "activation", 2, "digits_mlp activation '2' is unknown"),
        ("digits_mlp", "horizon", 1e-3, "digits_mlp horizon 40 times 0.001 rounds to 0 steps"),
        ("digits_mlp", "horizon", "long", "digits_mlp horizon must be a number > 0"),
        ("digits_mlp", "loss_scale", 1e39, "digits_mlp loss_scale must be a number > 0 in the range of float32"),
        ("digits_mlp", "loss_scale", float("nan"), "digits_mlp loss_scale must be a number > 0"),
        ("digits_mlp", "loss_scale", True, "digits_mlp loss_scale must be a number > 0"),
        ("digits_mlp", "gradient_noise", -0.1, "digits_mlp gradient_noise must be a number >= 0"),
        ("digits_mlp", "precision", "float16", "digits_mlp precision must be one of float32, bfloat16, got 'float16'"),
        ("quadratic", "width", 2, "quadratic has no axis 'width', .* level 2; it has horizon, loss_scale"),
        ("quadratic", "init_scale", 2, "quadratic has no axis 'init_scale'"),
        ("learned_optimizer_task", "activation", "tanh", "learned_optimizer_task has no axis 'activation'"),
        ("digits_logistic", "width", 2, "digits_logistic has no axis 'width', .* level 2; this shape has batch"),
        ("text_gru", "activation", "tanh", "text_gru has no axis 'activation', .* level 'tanh'; this shape has width, depth, batch"),
    ],
)
def test_levels_that_make_no_sense_are_refused(family, axis, level, message) -> None:
    with pytest.raises(TaskError, match=message):
        shift(first(family), axis, level)


@pytest.mark.parametrize("axis", ["horizon", *LEVELS])
@pytest.mark.parametrize("family", ["quadratic", "learned_optimizer_task"])
def test_tasks_without_a_model_support_the_numbers(family, axis) -> None:
    shifted = shift(first(family), axis, LEVELS.get(axis, 2))
    assert float(tasks.build(shifted).horizon) == shifted.horizon
    trace = inner.run(learners.get("sgd", lr=1e-3), {}, [tasks.build(shifted)], [0], 2)
    assert bool(torch.isfinite(trace.loss).all())


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("48x48-silu-b48+wide=3", "axis 'wide' is unknown"),
        ("48x48-silu-b48+width=96+width=98", "width is set twice"),
        ("48x48-silu-b48+width=-3", "width must be a whole number >= 1, got '-3'"),
        ("48x48-silu-b48+width=0", "width must be a whole number >= 1, got '0'"),
        ("48x48-silu-b48+width=096", "width must be a whole number >= 1, got '096'"),
        ("48x48-silu-b48+width", "width must be a whole number >= 1, got ''"),
        ("nothing+width=3", "no template 'nothing' in meta_test"),
    ],
)
def test_templates_that_make_no_sense_are_refused(template, message) -> None:
    with pytest.raises(TaskError, match=message):
        tasks.build(TaskSpec("digits_mlp", template, "meta_test", {"init_scale": 1.0}, 5))


def test_a_linear_net_has_no_width_to_shift() -> None:
    with pytest.raises(TaskError, match=r"digits_mlp has no axis 'activation', .*; this shape has depth, batch"):
        shift(home(template="linear-relu-b64"), "activation", "tanh")
