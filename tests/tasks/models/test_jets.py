"""Derivatives carried forward: against torch's own, against a closed form, and inside a loss that is differentiated in turn."""

import pytest
import torch
from torch.func import grad, jacrev, vmap

from metaopt import seeds
from metaopt.tasks.models.jets import JET_ACTIVATIONS, jet
from metaopt.tasks.models.mlp import MLP

X = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)


def filled(net: MLP, name: str = "net"):
    params = net.init(seeds.key(name), torch.tensor(1.0, dtype=torch.float64))
    return {key: value + 0.3 * seeds.normal(seeds.key(name, key), value.shape, torch.float64) for key, value in params.items()}


@pytest.mark.parametrize("activation", JET_ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(1, 1), (1, 5, 1), (1, 4, 6, 1), (1, 3, 3, 3, 1)])
def test_value_and_derivatives_equal_torchs(activation: str, sizes: tuple[int, ...]) -> None:
    net = MLP(sizes, activation)
    params = filled(net)

    def value(x: torch.Tensor) -> torch.Tensor:
        return net.apply(params, x.reshape(1, 1)).squeeze()

    for found, wanted in zip(jet(net, params, X), (value, grad(value), grad(grad(value))), strict=True):
        torch.testing.assert_close(found, vmap(wanted)(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", JET_ACTIVATIONS)
def test_activations_know_their_own_derivatives(activation: str) -> None:
    function = JET_ACTIVATIONS[activation]
    found = function(X)
    slope = vmap(grad(lambda z: function(z)[0]))(X)
    bend = vmap(grad(lambda z: function(z)[1]))(X)
    torch.testing.assert_close(found[1], slope, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[2], bend, rtol=1e-12, atol=1e-12)


def test_one_sine_unit_is_a_sine() -> None:
    net, params = MLP((1, 1, 1), "sin"), {"layer0.weight": 3.0, "layer0.bias": 0.5, "layer1.weight": 2.0, "layer1.bias": -1.0}
    tensors = {name: torch.full((1, 1) if "weight" in name else (1,), value, dtype=torch.float64) for name, value in params.items()}
    u, first, second = jet(net, tensors, X)
    torch.testing.assert_close(u, 2.0 * torch.sin(3.0 * X + 0.5) - 1.0)
    torch.testing.assert_close(first, 6.0 * torch.cos(3.0 * X + 0.5))
    torch.testing.assert_close(second, -18.0 * torch.sin(3.0 * X + 0.5))


def test_a_loss_of_second_derivatives_has_the_gradient_that_differences_give() -> None:
    net = MLP((1, 4, 4, 1), "tanh")
    params, h = filled(net), 1e-6

    def loss(values):
        u, first, second = jet(net, values, X)
        return (u * first - second).square().mean()

    grads = grad(loss)(params)
    for name, value in params.items():
        step = h * seeds.normal(seeds.key("step", name), value.shape, torch.float64)
        want = (loss({**params, name: value + step}) - loss({**params, name: value - step})) / 2.0
        torch.testing.assert_close((grads[name] * step).sum(), want, rtol=1e-5, atol=1e-12)


def test_nets_side_by_side_and_derivatives_of_derivatives() -> None:
    """Under vmap each net has the gradient that it has alone, and Hessians are symmetric."""
    net = MLP((1, 3, 1), "tanh")

    def loss(values):
        return jet(net, values, X)[2].square().mean()

    both = [filled(net, name) for name in ("one", "two")]
    stacked = {name: torch.stack([params[name] for params in both]) for name in both[0]}
    together = vmap(grad(loss))(stacked)
    for i, params in enumerate(both):
        for name, value in grad(loss)(params).items():
            torch.testing.assert_close(together[name][i], value, rtol=1e-12, atol=1e-12)
    hessian = jacrev(grad(lambda bias: loss({**both[0], "layer0.bias": bias})))(both[0]["layer0.bias"])
    torch.testing.assert_close(hessian, hessian.T)
    assert float(hessian.abs().max()) > 0.0
