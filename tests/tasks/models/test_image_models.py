"""Models of images are what torch's own layers compute, vectorise over particles, and begin with the spread that they declare."""

import pytest
import torch
from torch import nn
from torch.func import grad_and_value, vmap
from torch.nn import functional as F

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.models import ACTIVATIONS, INITIALISERS, MLP, NORMS, ConvNet, ResidualNet, VisionTransformer
from metaopt.tasks.models.parts import normed, weight

IMAGE = (1, 8, 8)
MODELS = {
    "mlp": MLP((64, 12, 12, 5), "gelu", "orthogonal", "layer_norm"),
    "logistic": MLP((64, 5), "relu"),
    "conv": ConvNet(IMAGE, (4, 6), 5, "relu6", "fan_avg", "batch_norm", first_stride=2, pooling="max"),
    "conv1d": ConvNet((1, 64), (4, 6), 5, "silu", "uniform", "rms_norm"),
    "residual": ResidualNet(IMAGE, (4, 6), 2, 5, "relu"),
    "vision_transformer": VisionTransformer(IMAGE, 4, 8, 2, 12, 2, 5),
}
each_model = pytest.mark.parametrize("name", MODELS)


def random_params(model, scale: float = 1.0, dtype: torch.dtype = torch.float64):
    params = model.init(seeds.key("model"), torch.tensor(scale, dtype=dtype))
    return {k: v + 0.1 * seeds.normal(seeds.key("bias", k), v.shape, dtype) for k, v in params.items()}


def images(count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return seeds.normal(seeds.key("x"), (count, 64), dtype)


def fill(module: nn.Module, params, name: str) -> None:
    module.load_state_dict({part: params[f"{name}.{part}"] for part in ("weight", "bias") if f"{name}.{part}" in params})


def agree(model, params, module: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model.apply(params, x), module(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_equals_torch_layers(activation: str) -> None:
    model = MLP((64, 5, 4, 3), activation)
    params = random_params(model)
    layers = [nn.Linear(64, 5), nn.Linear(5, 4), nn.Linear(4, 3)]
    for i, layer in enumerate(layers):
        fill(layer.double(), params, f"layer{i}")
    x = images(7)
    hidden = ACTIVATIONS[activation](layers[1](ACTIVATIONS[activation](layers[0](x))))
    torch.testing.assert_close(model.apply(params, x), layers[2](hidden).detach(), rtol=1e-12, atol=1e-12)


FORMULAS = {
    "relu": lambda x: x.clamp(min=0),
    "relu6": lambda x: x.clamp(0, 6),
    "leaky_relu": lambda x: torch.where(x > 0, x, -0.5 * x),
    "silu": lambda x: x / (1 + (-x).exp()),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "cos": torch.cos,
}


def test_activations_are_functions_of_their_own() -> None:
    x = torch.linspace(-8, 8, 50)
    values = [f(x) for f in ACTIVATIONS.values()]
    assert all(not torch.allclose(a, b) for i, a in enumerate(values) for b in values[:i])
    for name, formula in FORMULAS.items():
        torch.testing.assert_close(ACTIVATIONS[name](x), formula(x), rtol=1e-5, atol=1e-6)


def test_leaky_relu_has_the_slope_of_its_source() -> None:
    assert ACTIVATIONS["leaky_relu"](torch.tensor([-2.0, 3.0])).tolist() == [1.0, 3.0]


NORM_MODULES = {"layer_norm": lambda: nn.LayerNorm(6), "rms_norm": lambda: nn.RMSNorm(6, eps=1e-5), "batch_norm": lambda: nn.BatchNorm1d(6)}


@pytest.mark.parametrize("norm", NORM_MODULES)
def test_norms_equal_torch_s_on_features(norm: str) -> None:
    model = MLP((64, 6, 3), "tanh", norm=norm)
    params = random_params(model)
    module = nn.Sequential(nn.Linear(64, 6), NORM_MODULES[norm](), nn.Tanh(), nn.Linear(6, 3)).double()
    fill(module[0], params, "layer0")
    fill(module[3], params, "layer1")
    state = module[1].state_dict() | {part: params[f"norm0.{part}"] for part in ("weight", "bias") if f"norm0.{part}" in params}
    module[1].load_state_dict(state)
    agree(model, params, module, 3.0 * images(7))


@pytest.mark.parametrize("norm", NORMS)
def test_norms_on_channels_leave_the_declared_axes_at_zero_mean_and_unit_square(norm: str) -> None:
    hidden = 2.0 + 3.0 * seeds.normal(seeds.key("h"), (5, 4, 3, 2), torch.float64)
    params = {"n.weight": torch.ones(4, dtype=torch.float64), "n.bias": torch.zeros(4, dtype=torch.float64)}
    out = normed(norm, params, "n", hidden, channel_axis=1)
    if norm == "none":
        assert out is hidden
        return
    axes = (0, 2, 3) if norm == "batch_norm" else (1, 2, 3)
    torch.testing.assert_close(out.square().mean(axes), torch.ones_like(out.mean(axes)), rtol=1e-4, atol=0)
    assert (float(out.mean(axes).abs().max()) < 1e-12) == (norm != "rms_norm")
    shifted = normed(norm, {"n.weight": 2 * params["n.weight"], "n.bias": params["n.bias"] + 1}, "n", hidden, channel_axis=1)
    torch.testing.assert_close(shifted, 2 * out + (norm != "rms_norm"))


def test_convnet_equals_torch_layers() -> None:
    model = ConvNet(IMAGE, (4, 6), 5, "tanh", norm="layer_norm", first_stride=2)
    params = random_params(model)
    norms = [nn.GroupNorm(1, 4), nn.GroupNorm(1, 6)]
    module = nn.Sequential(
        nn.Unflatten(1, IMAGE), nn.Conv2d(1, 4, 3, stride=2, padding=1), norms[0], nn.Tanh(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1), norms[1], nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    ).double()  # fmt: skip
    for name, i in (("conv0", 1), ("norm0", 2), ("conv1", 4), ("norm1", 5), ("head", 9)):
        fill(module[i], params, name)
    agree(model, params, module, images(3))


def test_convnet_on_sequences_equals_torch_layers() -> None:
    model = ConvNet((2, 32), (4, 6), 5, "selu", norm="batch_norm", pooling="max")
    params = random_params(model)
    module = nn.Sequential(
        nn.Unflatten(1, (2, 32)), nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4, track_running_stats=False), nn.SELU(),
        nn.Conv1d(4, 6, 3, stride=2, padding=1), nn.BatchNorm1d(6, track_running_stats=False), nn.SELU(),
        nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(6, 5),
    ).double()  # fmt: skip
    for name, i in (("conv0", 1), ("norm0", 2), ("conv1", 4), ("norm1", 5), ("head", 9)):
        fill(module[i], params, name)
    agree(model, params, module, images(4))


class Block(nn.Module):
    """A pre-activation block of torch's modules."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.norm0, self.norm1 = nn.GroupNorm(1, inside), nn.GroupNorm(1, outside)
        self.conv0 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1)
        self.conv1 = nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1, stride=stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1(self.norm1(self.conv0(self.norm0(x).relu())).relu()) + self.skip(x)


def test_residual_net_equals_torch_layers() -> None:
    model = ResidualNet(IMAGE, (4, 6), 2, 5, "relu")
    params = random_params(model)
    blocks = [Block(4, 4, 1), Block(4, 4, 1), Block(4, 6, 2), Block(6, 6, 1)]
    stem, norm, head = nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(1, 6), nn.Linear(6, 5)
    module = nn.Sequential(nn.Unflatten(1, IMAGE), stem, *blocks, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).double()
    for name, part in (("stem", stem), ("norm", norm), ("head", head)):
        fill(part, params, name)
    for place, block in zip(("group0.block0", "group0.block1", "group1.block0", "group1.block1"), blocks, strict=True):
        for name, part in block.named_children():
            fill(part, params, f"{place}.{name}")
    used = sum(value.numel() for value in module.state_dict().values())
    assert used == sum(value.numel() for value in params.values())
    agree(model, params, module, images(3))


def test_vision_transformer_equals_torch_s_encoder() -> None:
    model = VisionTransformer(IMAGE, 4, 8, 2, 12, 2, 5, "gelu")
    params = random_params(model)
    x = images(3)
    embed = nn.Conv2d(1, 8, 4, stride=4).double()
    embed.load_state_dict({"weight": params["embed.weight"].reshape(8, 1, 4, 4), "bias": params["embed.bias"]})
    hidden = embed(x.reshape(-1, *IMAGE)).flatten(2).transpose(1, 2) + params["positions"]
    for i in range(2):
        layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, F.gelu, batch_first=True, norm_first=True).double()
        mine = {part.removeprefix(f"layer{i}."): value for part, value in params.items() if part.startswith(f"layer{i}.")}
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": torch.cat([mine[f"{part}.weight"] for part in ("query", "key", "value")]),
                "self_attn.in_proj_bias": torch.cat([mine[f"{part}.bias"] for part in ("query", "key", "value")]),
                "self_attn.out_proj.weight": mine["out.weight"],
                "self_attn.out_proj.bias": mine["out.bias"],
                "linear1.weight": mine["up.weight"],
                "linear1.bias": mine["up.bias"],
                "linear2.weight": mine["down.weight"],
                "linear2.bias": mine["down.bias"],
                "norm1.weight": mine["norm0.weight"],
                "norm1.bias": mine["norm0.bias"],
                "norm2.weight": mine["norm1.weight"],
                "norm2.bias": mine["norm1.bias"],
            }
        )
        hidden = layer(hidden)
    hidden = F.layer_norm(hidden, (8,), params["norm.weight"], params["norm.bias"]).mean(1)
    want = F.linear(hidden, params["head.weight"], params["head.bias"])
    torch.testing.assert_close(model.apply(params, x), want.detach(), rtol=1e-10, atol=1e-10)


def test_vision_transformer_without_positions_does_not_see_the_order_of_patches() -> None:
    model = MODELS["vision_transformer"]
    params = random_params(model)
    x = images(2).reshape(2, 8, 8)
    swapped = torch.cat([x[:, 4:], x[:, :4]], 1)  # the upper row of patches below the lower one
    blind = {**params, "positions": torch.zeros_like(params["positions"])}
    torch.testing.assert_close(model.apply(blind, swapped), model.apply(blind, x))
    assert not torch.allclose(model.apply(params, swapped), model.apply(params, x))


@pytest.mark.parametrize("initialiser", INITIALISERS)
@pytest.mark.parametrize("shape", [(200, 50), (30, 400), (24, 12, 3, 3)])
def test_initial_weights_have_the_declared_spread(initialiser: str, shape: tuple[int, ...]) -> None:
    one, two = (weight(seeds.key("w"), shape, torch.tensor(s, dtype=torch.float64), initialiser) for s in (1.0, 2.0))
    torch.testing.assert_close(two, 2.0 * one)
    assert not torch.equal(one, weight(seeds.key("v"), shape, torch.tensor(1.0, dtype=torch.float64), initialiser))
    fan_in, fan_out = one[0].numel(), one[:, 0].numel()
    flat = one.reshape(shape[0], fan_in)
    if initialiser == "orthogonal":
        gram = flat @ flat.T if shape[0] < fan_in else flat.T @ flat
        torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype))
        return
    fan = {"normal": fan_in, "uniform": fan_in, "fan_avg": (fan_in + fan_out) / 2, "fan_out": fan_out}[initialiser]
    assert float(one.std()) * fan**0.5 == pytest.approx(1.0, abs=4.5 / (2 * one.numel()) ** 0.5)
    bounded = float(one.abs().max()) <= (3 / fan_in) ** 0.5
    assert bounded == (initialiser == "uniform")


@each_model
def test_layers_have_numbers_of_their_own_and_biases_begin_at_zero(name: str) -> None:
    params = MODELS[name].init(seeds.key("m"), torch.tensor(1.0))
    drawn = []
    for part, value in params.items():
        if ".bias" in part:
            assert not value.any()
        elif "norm" in part:
            assert bool((value == 1).all())
        elif value.numel() >= 40:
            drawn.append(value.reshape(-1)[:40])
    correlation = torch.corrcoef(torch.stack([*drawn, torch.arange(40.0)]))
    assert float((correlation - torch.eye(len(correlation))).abs().max()) < 0.75


@each_model
def test_vectorised_equals_looped_and_gradients_are_finite(name: str) -> None:
    model = MODELS[name]
    keys = torch.arange(3)
    scale = torch.tensor(1.0, dtype=torch.float64)
    params = vmap(lambda key: model.init(key, scale))(keys)
    x, y = seeds.normal(seeds.key("x"), (3, 4, 64), torch.float64), seeds.randint(seeds.key("y"), (3, 4), 5)

    def loss(params, x, y):
        return -model.apply(params, x).log_softmax(-1).gather(-1, y.unsqueeze(-1)).mean()

    grads, losses = vmap(grad_and_value(loss))(params, x, y)
    for i in range(3):
        alone = model.init(keys[i], scale)
        one, value = grad_and_value(loss)(alone, x[i], y[i])
        torch.testing.assert_close(losses[i], value, rtol=1e-10, atol=1e-12)
        for part in one:
            torch.testing.assert_close(params[part][i], alone[part], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(grads[part][i], one[part], rtol=1e-8, atol=1e-10)
    assert all(value.dtype == torch.float64 and torch.isfinite(value).all() for value in grads.values())
    assert all(bool(value.any()) for value in grads.values())  # every parameter takes part


@each_model
def test_gradients_stay_finite_on_blank_images(name: str) -> None:
    model = MODELS[name]
    grads = torch.func.grad(lambda params: model.apply(params, torch.zeros(2, 64)).log_softmax(-1)[:, 0].sum())(
        model.init(seeds.key("m"), torch.tensor(1.0))
    )
    assert all(bool(torch.isfinite(value).all()) for value in grads.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
@each_model
def test_compiled_step_equals_eager(name: str) -> None:
    model = MODELS[name]
    params = vmap(lambda key: model.init(key, torch.tensor(1.0)))(torch.arange(2))
    x, y = seeds.normal(seeds.key("x"), (2, 4, 64)), seeds.randint(seeds.key("y"), (2, 4), 5)
    step = vmap(grad_and_value(lambda p, x, y: -model.apply(p, x).log_softmax(-1).gather(-1, y.unsqueeze(-1)).mean()))
    eager, compiled = step(params, x, y), torch.compile(step, fullgraph=True, dynamic=False)(params, x, y)
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP((4, 2), "rellu"), r"model activation 'rellu' is unknown; did you mean 'relu'\?"),
        (lambda: MLP((4, 2), "relu", "xavier"), "model initialiser 'xavier' is unknown; known: normal"),
        (lambda: MLP((4, 2), "relu", norm="layernorm"), r"model norm 'layernorm' is unknown; did you mean 'layer_norm'\?"),
        (lambda: MLP((4,), "relu"), r"MLP sizes must be at least two numbers >= 1, got \(4,\)"),
        (lambda: ConvNet(IMAGE, (), 5, "relu"), r"ConvNet channels must be at least one number >= 1, got \(\)"),
        (
            lambda: ConvNet((64,), (4,), 5, "relu"),
            r"ConvNet shape must be \(channels, height, width\) or \(channels, length\), got \(64,\)",
        ),
        (lambda: ConvNet(IMAGE, (4,), 5, "relu", pooling="sum"), "ConvNet pooling must be mean or max, got 'sum'"),
        (lambda: ResidualNet(IMAGE, (4,), 0, 5, "relu"), r"ResidualNet widths and blocks must be numbers >= 1, got \(4,\) and 0"),
        (lambda: ResidualNet((1, 64), (4,), 1, 5, "relu"), r"ResidualNet shape must be \(channels, height, width\), got \(1, 64\)"),
        (lambda: VisionTransformer(IMAGE, 3, 8, 2, 8, 1, 5), "VisionTransformer patch must divide height and width, got 3"),
        (lambda: VisionTransformer(IMAGE, 4, 9, 2, 8, 1, 5), "VisionTransformer heads must divide width, got 2 for 9"),
    ],
)
def test_descriptions_that_make_no_network_are_refused(make, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        make()
