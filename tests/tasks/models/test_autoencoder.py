"""Autoencoders against stacks of torch's layers, the divergence against torch's, small heads."""

from itertools import pairwise

import pytest
import torch
from torch import distributions, nn
from torch.func import grad, vmap

from metaopt import seeds
from metaopt.tasks.models.autoencoder import Autoencoder, VariationalAutoencoder, gaussian_kl
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.small_head import HEAD_SHARE, SmallHead

D, B = 10, 4


def filled(model):
    params = model.init(seeds.key("model"), torch.tensor(1.0, dtype=torch.float64))
    return {name: value + 0.3 * seeds.normal(seeds.key(name), value.shape, torch.float64) for name, value in params.items()}


def stack(sizes: tuple[int, ...], params, prefix: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layer = nn.Linear(fan_in, fan_out, dtype=torch.float64)
        layer.load_state_dict({kind: params[f"{prefix}.layer{i}.{kind}"] for kind in ("weight", "bias")})
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("widths", [(), (8,), (8, 5)])
def test_reconstruction_equals_torch_layers(widths: tuple[int, ...]) -> None:
    model = Autoencoder(D, widths, 3, "tanh")
    params, x = filled(model), seeds.normal(seeds.key("x"), (B, D), torch.float64)
    encoder, decoder = stack((D, *widths, 3), params, "encoder"), stack((3, *widths[::-1], D), params, "decoder")
    torch.testing.assert_close(model.apply(params, x), decoder(encoder(x).tanh()).detach(), rtol=1e-12, atol=1e-12)
    assert len(params) == 4 * (len(widths) + 1)


@pytest.mark.parametrize("widths", [(), (8,)])
def test_latents_are_drawn_from_what_the_encoder_says(widths: tuple[int, ...]) -> None:
    model = VariationalAutoencoder(D, widths, 3, "tanh")
    params, x = filled(model), seeds.normal(seeds.key("x"), (B, D), torch.float64)
    noise = seeds.normal(seeds.key("noise"), (B, 3), torch.float64)
    out, mean, log_variance = model.apply(params, x, noise)
    code = stack((D, *widths, 6), params, "encoder")(x)
    torch.testing.assert_close(torch.cat([mean, log_variance], -1), code.detach(), rtol=1e-12, atol=1e-12)
    want = stack((3, *widths, D), params, "decoder")(mean + (log_variance / 2).exp() * noise)
    torch.testing.assert_close(out, want.detach(), rtol=1e-12, atol=1e-12)


def test_divergence_equals_torchs() -> None:
    mean, log_variance = (2.0 * seeds.normal(seeds.key(name), (50, 7), torch.float64) for name in ("m", "v"))
    posterior = distributions.Normal(mean, (log_variance / 2).exp())
    want = distributions.kl_divergence(posterior, distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean)))
    torch.testing.assert_close(gaussian_kl(mean, log_variance), want.sum(-1), rtol=1e-12, atol=1e-12)
    assert not gaussian_kl(torch.zeros(5), torch.zeros(5)).any()


def test_gradients_pass_through_the_draw() -> None:
    """The derivative of E (mean + std n)^2 by the log variance is the variance itself; of one draw it is (mean + std n) std n."""
    model = VariationalAutoencoder(2, (), 1, "tanh")
    params = filled(model)
    x, noise = torch.ones(1, 2, dtype=torch.float64), torch.tensor([[0.7]], dtype=torch.float64)

    def latent(bias):
        own = {**params, "encoder.layer0.bias": bias, "decoder.layer0.weight": torch.eye(2, 1, dtype=torch.float64)}
        return model.apply({**own, "decoder.layer0.bias": torch.zeros(2, dtype=torch.float64)}, x, noise)[0][0, 0].square()

    bias = params["encoder.layer0.bias"]
    _, mean, log_variance = model.apply(params, x, noise)
    deviation = float((log_variance / 2).exp())
    draw = float(mean) + deviation * 0.7
    torch.testing.assert_close(grad(latent)(bias), torch.tensor([2 * draw, draw * deviation * 0.7], dtype=torch.float64))


@pytest.mark.parametrize("kind", [Autoencoder, VariationalAutoencoder])
def test_outputs_begin_near_the_mean(kind) -> None:
    model = kind(D, (16,), 4, "relu")
    noise = () if kind is Autoencoder else (seeds.normal(seeds.key("n"), (200, 4)),)
    x = seeds.normal(seeds.key("x"), (200, D))
    outs = [model.apply(model.init(seeds.key(i), torch.tensor(1.0)), x, *noise) for i in range(5)]
    first = [out[0] if isinstance(out, tuple) else out for out in outs]
    assert max(float(out.square().mean()) for out in first) < 0.05
    if kind is VariationalAutoencoder:  # the posterior begins near the prior
        assert max(float(gaussian_kl(mean, log_variance).mean()) for _, mean, log_variance in outs) < 1.0


def test_a_small_head_is_a_tenth_and_nothing_else_changes() -> None:
    net = MLP((6, 5, 3), "tanh")
    plain, small = (kind.init(seeds.key("m"), torch.tensor(1.3)) for kind in (net, SmallHead(net)))
    assert torch.equal(small["layer1.weight"], plain["layer1.weight"] * HEAD_SHARE)
    assert all(torch.equal(small[name], plain[name]) for name in plain if name != "layer1.weight")
    x = seeds.normal(seeds.key("x"), (B, 6))
    assert torch.equal(SmallHead(net).apply(plain, x), net.apply(plain, x))


def test_particles_get_what_each_gets_alone() -> None:
    model = VariationalAutoencoder(D, (8,), 3, "gelu")
    params = vmap(model.init)(torch.arange(4), torch.linspace(0.5, 2.0, 4, dtype=torch.float64))
    x, noise = seeds.normal(seeds.key("x"), (4, B, D), torch.float64), seeds.normal(seeds.key("n"), (4, B, 3), torch.float64)
    together = vmap(model.apply)(params, x, noise)
    for i in range(4):
        alone = model.apply({k: v[i] for k, v in params.items()}, x[i], noise[i])
        for one, two in zip(together, alone, strict=True):
            torch.testing.assert_close(one[i], two, rtol=1e-12, atol=1e-12)
