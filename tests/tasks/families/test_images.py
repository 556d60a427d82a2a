"""Families of networks on a data set: shapes become the networks that they spell, cheap ones only, and a user's data need one line."""

import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from metaopt import seeds, tasks
from metaopt.errors import ConfigError, TaskError
from metaopt.tasks import data, registry
from metaopt.tasks.families.architectures import _LARGEST_BATCH, ARCHITECTURES, example_shape
from metaopt.tasks.families.images import classification
from metaopt.tasks.floors import FLOORS
from metaopt.tasks.models import MLP, ConvNet, ResidualNet, VisionTransformer
from metaopt.tasks.sampling import Choices, Integers

DIGITS, MNIST = data.get("digits"), data.get("mnist")
COUNTS = {"meta_train": 8, "meta_valid": 2, "meta_test": 2}
PARTS = {"activation": "relu", "initialiser": "normal"}


def program_of(family, template: str):
    return family.build(family.sample(template, 0, (5, 5))).program


CASES = [
    ("mlp", {"width": 9, "depth": 2, "norm": "rms_norm", **PARTS}, MLP((64, 9, 9, 10), "relu", "normal", "rms_norm")),
    ("mlp", {"depth": 0, "initialiser": "uniform"}, MLP((64, 10), "relu", "uniform")),
    ("logistic", {"initialiser": "orthogonal"}, MLP((64, 10), "relu", "orthogonal")),
    (
        "conv",
        {"width": 4, "depth": 3, "stride": 2, "pooling": "max", **PARTS},
        ConvNet((1, 8, 8), (4, 8, 16), 10, "relu", "normal", "none", 2, "max"),
    ),
    (
        "resnet",
        {"width": 4, "groups": 2, "blocks": 1, "norm": "batch_norm", **PARTS},
        ResidualNet((1, 8, 8), (4, 8), 1, 10, "relu", "normal", "batch_norm"),
    ),
    (
        "vit",
        {"patch": 4, "width": 8, "heads": 2, "expansion": 4, "layers": 1, "norm": "layer_norm", **PARTS},
        VisionTransformer((1, 8, 8), 4, 8, 2, 32, 1, 10, "relu"),
    ),
]


@pytest.mark.parametrize(("architecture", "shape", "model"), CASES, ids=[case[0] for case in CASES])
def test_shapes_become_the_networks_that_they_spell(architecture: str, shape, model) -> None:
    family = classification("own", DIGITS, architecture, {"meta_train": {"t": {**shape, "batch": 6}}})
    program = program_of(family, "t")
    assert program.model == model
    assert (program.stream.batch_size, program.stream.shape) == (6, (1, 8, 8))


@pytest.mark.parametrize(("architecture", "shape", "model"), CASES, ids=[case[0] for case in CASES])
def test_costs_are_the_multiplications_that_torch_counts(architecture: str, shape, model) -> None:
    params = model.init(seeds.key("m"), torch.tensor(1.0))
    counter = FlopCounterMode(display=False)
    with counter:
        model.apply(params, torch.zeros(3, 64))
    cost = ARCHITECTURES[architecture].cost({**shape, "batch": 3}, (1, 8, 8), 10)
    assert cost == pytest.approx(counter.get_total_flops() / 2 / 3, rel=0.12)  # heads and skips of deep ones are left out


# Without an axis `side` (textures have sixteen pixels a side) a logistic regression has too few shapes to draw from.
DRAWN = [(kind, name) for kind in ARCHITECTURES for name in ("digits", "mnist", "textures") if (kind, name) != ("logistic", "textures")]


@pytest.mark.parametrize(("architecture", "name"), DRAWN)
def test_drawn_templates_are_cheap_distinct_and_build(architecture: str, name: str) -> None:
    source = data.get(name)
    family = classification("own", source, architecture, counts=COUNTS)
    tasks.check_templates(family)
    kind = ARCHITECTURES[architecture]
    for split, count in COUNTS.items():
        assert len(family.templates(split)) == count
        for template, shape in family.grid[split].items():
            extent = example_shape(shape, source.shape)
            assert max(extent[1:]) <= 16
            assert shape["batch"] * kind.cost(shape, extent, source.classes) <= _LARGEST_BATCH, template
            params = program_of(family, template).model.init(seeds.key("m"), torch.tensor(1.0))
            assert sum(value.numel() for value in params.values()) < 100_000


def test_sequences_have_convolutions_along_one_axis() -> None:
    family = classification("own", data.get("mnist1d"), "conv", counts=COUNTS)
    model = program_of(family, family.templates("meta_train")[0]).model
    params = model.init(seeds.key("m"), torch.tensor(1.0))
    assert params["conv0.weight"].shape[2:] == (3,)
    assert model.apply(params, torch.zeros(2, 40)).shape == (2, 10)


def test_the_normaliser_is_one_for_a_guess_and_zero_at_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FLOORS, "own", 0.3)
    family = classification("own", DIGITS, "mlp", {"meta_train": {"t": {"width": 4, "depth": 1, "batch": 4}}})
    task = family.build(family.sample("t", 0, (5, 5)))
    params = {name: torch.zeros_like(value) for name, value in task.init(seeds.key("r")).items()}
    guess = task.loss(params, task.heldout(seeds.key("r"), torch.tensor(0)))
    assert float(guess) == pytest.approx(math.log(10), rel=1e-6)
    assert float(task.normalise(guess)) == pytest.approx(1.0, rel=1e-5)
    assert float(task.normalise(torch.tensor(0.3))) == pytest.approx(0.0, abs=1e-6)


def test_initial_scale_and_horizon_vary_inside_a_template() -> None:
    family = tasks.get("digits_vit")
    template = family.templates("meta_train")[0]
    specs = [family.sample(template, seed, (10, 500)) for seed in range(200)]
    scales = [float(spec.values["init_scale"]) for spec in specs]
    assert 0.7 < min(scales) < 0.75
    assert 1.35 < max(scales) < 1.42
    assert len({spec.horizon for spec in specs}) > 50
    assert len({family.build(spec).program for spec in specs[:5]}) == 1


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_SOURCES", dict(data._SOURCES))
    monkeypatch.setattr(registry.REGISTRY, "_entries", dict(registry.REGISTRY._entries))


def leaves(shape: tuple[int, ...] = (3, 20, 24)):
    pixels = seeds.normal(seeds.key("leaves"), (60, *shape)).numpy()
    return data.make_data_set("leaves", pixels + np.arange(60).reshape(-1, *[1] * len(shape)) % 3, np.arange(60) % 3, shape=shape)


@pytest.mark.usefixtures("own_registries")
def test_a_user_s_data_need_one_line() -> None:
    family = tasks.image_family("leaves_conv", data.register("leaves", leaves), "conv", counts=COUNTS)
    assert tasks.get("leaves_conv") is family
    task = family.build(family.sample(family.templates("meta_test")[0], 0, (5, 5)))
    side = task.program.stream.shape[1]
    assert task.program.stream.shape == (3, side, side)
    assert side in (8, 12)
    assert float(task.normalise(task.loss(task.init(seeds.key("r")), task.heldout(seeds.key("r"), torch.tensor(0))))) < 3
    by_name = tasks.image_family("leaves_mlp", "leaves", counts=COUNTS, space={"side": Choices((4,)), "depth": Integers(1, 2)})
    assert {shape["side"] for shape in by_name.grid["meta_train"].values()} == {4}
    with pytest.raises(ConfigError, match="task family 'leaves_mlp' is registered already"):
        tasks.image_family("leaves_mlp", "leaves", counts=COUNTS)


@pytest.mark.usefixtures("own_registries")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tasks.image_family("f", "leafs"), ConfigError, r"data set 'leafs' is unknown"),
        (lambda: tasks.image_family("f", "digits", "cnn"), TaskError, "family f: architecture 'cnn' is unknown"),
        (
            lambda: tasks.image_family("f", "digits", space={"widht": Integers(1, 2)}),
            TaskError,
            r"'widht' is unknown; did you mean 'width'",
        ),
        (lambda: tasks.image_family("f", "mnist1d", space={"side": Choices((8,))}), TaskError, "axis 'side' is unknown"),
        (lambda: tasks.image_family("f", "mnist1d", "vit"), TaskError, r"'vit' takes examples of 2 axes beside the channels"),
        (lambda: tasks.image_family("f", "digits", space={"batch": Choices((10**6,))}), TaskError, "family f: .* do not fit its space"),
        (lambda: tasks.image_family("f", "digits", "vit", space={"patch": Choices((3,))}), TaskError, "patch must divide height and width"),
    ],
)
def test_what_does_not_fit_is_named(make, error, message: str) -> None:
    before = tasks.names()
    with pytest.raises(error, match=message):
        make()
    assert tasks.names() == before
