"""The layer code with known learning rules as cells: routing, reductions, convolutions, schedules and batches, exact in float64.

The other side of every comparison is SGD by autograd on an ordinary network in plain torch.
"""

import pytest
import torch

from metaopt.learners.per_weight import NetworkSpec
from metaopt.learners.per_weight.analytic import BackpropCell, OnlineCell
from metaopt.learners.per_weight.conv import Conv
from metaopt.learners.per_weight.dense import Dense
from metaopt.learners.per_weight.network import fresh_state, predict, present
from metaopt.seeds import key
from tests.learners.per_weight.networks import (
    Layers,
    backprop_spec,
    backprop_theta,
    gap,
    network_state,
    run,
    sgd,
    stream,
    weights_of,
)

EXACT = 1e-12
STEP = 0.3
MLP: Layers = (Dense(6, 5), Dense(5, 4), Dense(4, 3))


@pytest.mark.parametrize("examples", [1, 4])
@pytest.mark.parametrize("layers", [MLP[2:], MLP], ids=["one-layer", "three-layers"])
def test_backprop_cell_is_minibatch_sgd(layers: Layers, examples: int) -> None:
    weights, steps, spec = weights_of(layers), [STEP] * len(layers), backprop_spec(layers)
    xs, ys = stream(layers[0].fan_in, 3, examples)
    state, logits = run(spec, BackpropCell(), backprop_theta(steps), network_state(spec, weights, BackpropCell.entries, examples), xs, ys)
    after, wanted = sgd(layers, weights, steps, xs, ys)
    assert max(float((a - b).abs().max()) for a, b in zip(after, weights, strict=True)) > 0.3  # something was learned
    assert gap(state, logits, after, wanted) < EXACT


def test_means_are_sgd_with_divided_preactivations_and_scaled_steps() -> None:
    """Layer k of A_k inputs and B_k outputs gets errors that are s_k times the true ones, s_K = 1, s_{k-1} = s_k A_k / B_k."""
    steps, s = [], 1.0
    for layer in reversed(MLP):
        inputs, outputs = layer.edges
        steps.insert(0, STEP / (inputs * s))
        s *= inputs / outputs
    weights, spec = weights_of(MLP), backprop_spec(MLP, "mean")
    xs, ys = stream(6, 3)
    found = run(spec, BackpropCell(), backprop_theta(steps), network_state(spec, weights, BackpropCell.entries), xs, ys)
    assert gap(*found, *sgd(MLP, weights, [STEP] * 3, xs, ys, mean=True)) < EXACT


@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_two_convolutions_and_a_dense_layer_are_sgd(kernel: int, stride: int, examples: int) -> None:
    """States are averaged over L output positions, so that a convolution makes a step of 1 / L of what SGD with the same size makes."""
    first = Conv((7, 6), 2, 3, kernel, stride)
    second = Conv(first.output_shape[:2], 3, 2, kernel, stride)
    height, width, channels = second.output_shape
    layers: Layers = (first, second, Dense(height * width * channels, 3))
    positions = [layer.output_shape[0] * layer.output_shape[1] for layer in layers[:2]]
    xs, ys = stream(2 * 7 * 6, 3, examples, steps=6)
    weights, spec = weights_of(layers), backprop_spec(layers)
    state = network_state(spec, weights, BackpropCell.entries, examples)
    found = run(spec, BackpropCell(), backprop_theta([STEP] * 3), state, xs, ys)
    images = xs.reshape(len(xs), examples, 2, 7, 6).permute(0, 1, 3, 4, 2)
    wanted = sgd(layers, weights, [STEP / positions[0], STEP / positions[1], STEP], images, ys)
    assert gap(*found, *wanted) < EXACT


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_means_of_a_convolution_count_what_meets(reduce: str) -> None:
    """With unit weights and a constant error, a backward mean is the same at every input that anything reaches, however often."""
    spec = NetworkSpec((Conv((5, 5), 1, 2, 3, 2), Dense(18, 2)), ticks=1, schedule="forward_backward", reduce=reduce)  # type: ignore[arg-type]
    layer = spec.layers[0]
    weight = torch.ones(1, *layer.edges, 1, dtype=torch.float64)
    state = {"weight": weight, "up": torch.zeros_like(weight), "down": torch.zeros_like(weight)}
    theta = {"step": torch.tensor(0.0, dtype=torch.float64), "raw": torch.tensor(1.0, dtype=torch.float64)}
    error = torch.ones(1, *layer.output_shape, 2, dtype=torch.float64)
    _, _, back = layer(BackpropCell(), theta, state, torch.ones(1, 5, 5, 1, 2, dtype=torch.float64), error, 1, spec.reduce)
    by_hand = torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0], dtype=torch.float64)  # outputs at 0, 2, 4 with one neighbour on each side
    counts = torch.outer(by_hand, by_hand) * 2
    assert torch.equal(back[0, :, :, 0, 0], counts if reduce == "sum" else torch.ones_like(counts))


def one_layer(ticks: int = 1) -> NetworkSpec:
    return NetworkSpec((Dense(6, 3),), ticks=ticks, reduce="sum", logit_bound=None, tied=False)


def test_online_cell_is_sgd_without_delay() -> None:
    """The forward-only schedule brings an error one example late, to the input that it belongs to: no prediction is late."""
    spec, theta = one_layer(), backprop_theta([STEP])
    xs, ys = stream(6, 3)
    state = network_state(spec, weights_of(spec.layers), OnlineCell.entries)
    _, logits = run(spec, OnlineCell(), theta, state, xs, ys)
    _, wanted = sgd(spec.layers, weights_of(spec.layers), [STEP], xs, ys)
    assert float((logits - wanted).abs().max()) < EXACT


def test_two_micro_ticks_pair_the_new_input_with_the_old_error() -> None:
    spec, theta = one_layer(ticks=2), backprop_theta([STEP])
    xs, ys = stream(6, 3)
    _, logits = run(spec, OnlineCell(), theta, network_state(spec, weights_of(spec.layers), OnlineCell.entries), xs, ys)
    _, wanted = sgd(spec.layers, weights_of(spec.layers), [STEP], xs, ys)
    assert torch.allclose(logits[0], wanted[0])
    assert float((logits[1:] - wanted[1:]).abs().max()) > 0.1


def test_batches_share_the_weight_and_nothing_else() -> None:
    """After a batch each example has its own step; before the next one, all of them have their mean."""
    spec, theta = backprop_spec(MLP), backprop_theta([STEP] * 3)
    xs, ys = stream(6, 3, 4)
    state, _ = present(spec, BackpropCell(), theta, network_state(spec, weights_of(MLP), BackpropCell.entries, 4), xs[0], ys[0])
    weight, up = state["edges"]["layer1"]["weight"], state["edges"]["layer1"]["up"]
    assert float((weight[0] - weight[1]).abs().max()) > 1e-3
    after, _ = predict(spec, BackpropCell(), theta, state, xs[1])
    assert float((after["edges"]["layer1"]["weight"] - weight.mean(0)).abs().max()) < EXACT
    assert float((after["edges"]["layer1"]["up"][0] - up[0]).abs().max()) > 1e-3


def test_fresh_analytic_networks_learn() -> None:
    """A fresh backprop network from a key learns a separable stream; users may take it as a baseline."""
    spec, theta = backprop_spec((Dense(6, 8), Dense(8, 3))), backprop_theta([STEP] * 2)
    xs, _ = stream(6, 3, 8, steps=120)
    ys = xs[..., :3].argmax(-1)
    state = fresh_state(spec, BackpropCell(), theta, key("fresh"), 8)
    _, logits = run(spec, BackpropCell(), theta, state, xs, ys)
    assert float((logits[-40:].argmax(-1) == ys[-40:]).double().mean()) > 0.85
