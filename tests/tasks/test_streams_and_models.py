"""Digits are split once and for all; models are what torch's own layers compute."""

import pytest
import torch
from torch import nn

from metaopt import seeds
from metaopt.tasks.models import ACTIVATIONS, MLP, ConvNet
from metaopt.tasks.streams import Digits


def rows_of(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_heldout_rows_are_never_trained_on() -> None:
    shared = Digits(32).shared()
    assert len(shared["train_y"]) == 1437
    assert len(shared["heldout_y"]) == 360
    training, heldout = rows_of(shared["train_x"]), rows_of(shared["heldout_x"])
    assert not training & heldout
    stream, key = Digits(256), seeds.key("run")
    seen = rows_of(torch.cat([stream.batch(shared, key, torch.tensor(t))["x"] for t in range(30)]))
    assert seen <= training
    assert len(seen) > 0.98 * len(training)  # 7,680 draws of 1,437 rows
    assert torch.equal(stream.heldout(shared)["x"], shared["heldout_x"])


def test_images_keep_their_labels_and_are_standardised() -> None:
    shared = Digits(64).shared()
    label_of = {x.numpy().tobytes(): int(y) for x, y in zip(shared["train_x"], shared["train_y"], strict=True)}
    batch = Digits(64).batch(shared, seeds.key("run"), torch.tensor(0))
    assert batch["x"].shape == (64, 64)
    assert [label_of[x.numpy().tobytes()] for x in batch["x"]] == batch["y"].tolist()
    everything = torch.cat([shared["train_x"], shared["heldout_x"]])
    assert float(everything.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(everything.std()) == pytest.approx(1.0, abs=1e-5)
    assert set(torch.cat([shared["train_y"], shared["heldout_y"]]).tolist()) == set(range(10))


MODULES = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "silu": nn.SiLU, "selu": nn.SELU}


def random_params(model, scale: float = 1.0):
    params = model.init(seeds.key("model"), torch.tensor(scale))
    return {k: v + 0.1 * seeds.normal(seeds.key("bias", k), v.shape) for k, v in params.items()}


@pytest.mark.parametrize("activation", MODULES)
def test_mlp_equals_torch_layers(activation: str) -> None:
    model = MLP((6, 5, 4, 3), activation)
    params, x = random_params(model), seeds.normal(seeds.key("x"), (7, 6))
    module = nn.Sequential(nn.Linear(6, 5), MODULES[activation](), nn.Linear(5, 4), MODULES[activation](), nn.Linear(4, 3))
    for name, i in (("layer0", 0), ("layer1", 2), ("layer2", 4)):
        module[i].load_state_dict({"weight": params[f"{name}.weight"], "bias": params[f"{name}.bias"]})
    torch.testing.assert_close(model.apply(params, x), module(x).detach())


def test_convnet_equals_torch_layers() -> None:
    model = ConvNet(8, (4, 6), 10, "tanh")
    params, x = random_params(model), seeds.normal(seeds.key("x"), (3, 64))
    module = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10),
    )  # fmt: skip
    for name, i in (("conv0", 1), ("conv1", 3), ("head", 7)):
        module[i].load_state_dict({"weight": params[f"{name}.weight"], "bias": params[f"{name}.bias"]})
    torch.testing.assert_close(model.apply(params, x), module(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [MLP((64, 200, 100, 10), "relu"), ConvNet(8, (32, 64), 10, "relu")], ids=["mlp", "conv"])
def test_initial_weights_have_the_declared_spread(model) -> None:
    params, doubled = (model.init(seeds.key("m"), torch.tensor(scale)) for scale in (1.0, 2.0))
    for name, value in params.items():
        torch.testing.assert_close(doubled[name], 2.0 * value)
        if name.endswith("bias"):
            assert not value.any()
        else:
            fan_in = value[0].numel()
            assert float(value.std()) * fan_in**0.5 == pytest.approx(1.0, abs=4.5 / (2 * value.numel()) ** 0.5)
    weights = [value.reshape(-1)[:200] for name, value in params.items() if name.endswith("weight")]
    correlation = torch.corrcoef(torch.stack(weights)).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 0.3  # each layer has numbers of its own


def test_all_activations_are_functions_of_their_own() -> None:
    x = torch.linspace(-3, 3, 50)
    values = [f(x) for f in ACTIVATIONS.values()]
    assert all(not torch.allclose(a, b) for i, a in enumerate(values) for b in values[:i])
    assert torch.equal(ACTIVATIONS["sin"](x), x.sin())
