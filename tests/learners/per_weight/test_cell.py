"""The LSTM on every edge: against the plain cell, its readouts, its initial state, symmetries of a network of it, and a hand-set one."""

import math

import pytest
import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.lstm_cell import lstm_cell
from metaopt.learners.per_weight import CellSpec, LSTMCell, NetworkSpec, NetworkState, fresh_state, init_cell_theta, present, stack_layers
from metaopt.learners.per_weight.analytic import IMITATION, sgd_lstm_theta
from metaopt.learners.per_weight.cell import truncated_normal
from metaopt.learners.per_weight.conv import conv_layer
from metaopt.learners.per_weight.dense import Dense, dense_layer
from metaopt.seeds import key
from tests.learners.per_weight.networks import draw, no_messages, run, sgd, stream

EXACT = 1e-12
SMALL = CellSpec(state=6, message=3)


def double(theta: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in theta.items()}


def theta_of(spec: CellSpec, prefix: str = "") -> dict[str, Tensor]:
    """Random weights, biases and gains too."""
    theta = double(init_cell_theta(spec, 0, prefix))
    return {name: value + 0.3 * draw(*value.shape, seed=50 + i) for i, (name, value) in enumerate(theta.items())}


def edge_state(spec: CellSpec, *edges: int) -> dict[str, Tensor]:
    return {"h": draw(*edges, spec.state, seed=1).tanh(), "c": draw(*edges, spec.state, seed=2)}


def test_number_of_weights() -> None:
    for spec, count in ((CellSpec(), 2384), (CellSpec(layer_norm=True), 2416)):
        assert sum(value.numel() for value in init_cell_theta(spec, 0).values()) == count


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_a_dense_layer_is_the_plain_cell_on_every_edge(reduce: str, layer_norm: bool) -> None:
    """Gates from one concatenated input an edge, readouts of each edge, then the reduction: nothing factored."""
    spec = CellSpec(6, 3, input_bias=0.7, forget_bias=1.3, layer_norm=layer_norm)
    cell, theta, state = LSTMCell(spec), theta_of(spec), edge_state(spec, 2, 4, 5)
    forward, backward = draw(2, 4, 3, seed=3), draw(2, 5, 3, seed=4)
    new, out, back = dense_layer(cell, theta, state, forward, backward, 2, reduce)  # type: ignore[arg-type]

    order = torch.cat([torch.arange(6, 12), torch.arange(6), torch.arange(12, 24)])  # i, g, f, o of g, i, f, o
    weights = torch.cat([theta["forward_weight"], theta["backward_weight"]], 1)[order], theta["state_weight"][order], theta["bias"][order]
    pairs = torch.cat([forward.unsqueeze(2).expand(2, 4, 5, 3), backward.unsqueeze(1).expand(2, 4, 5, 3)], -1)
    h, c = state["h"], state["c"]
    for _ in range(2):
        h, c = lstm_cell(pairs, h, c, *weights, forget_bias=1.3, input_bias=0.7)
    assert float((new["h"] - h).abs().max()) < EXACT
    assert float((new["c"] - c).abs().max()) < EXACT
    for name, found, axis in (("forward", out, 1), ("backward", back, 2)):
        read = h @ theta[f"{name}_out"].T + theta[f"{name}_out_bias"]
        if layer_norm:
            centred = read - read.mean(-1, keepdim=True)
            read = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * theta[f"{name}_gain"] + theta[f"{name}_shift"]
        assert float((found - (read.mean(axis) if reduce == "mean" else read.sum(axis))).abs().max()) < EXACT


def test_a_convolution_of_one_position_is_a_dense_layer() -> None:
    """Kernel 1 on an image of one pixel has the edges of a dense layer; so has kernel 3, whose other offsets see the padding."""
    cell, theta, state = LSTMCell(SMALL), theta_of(SMALL), edge_state(SMALL, 2, 1, 1, 4, 5)
    forward, backward = draw(2, 4, 3, seed=3), draw(2, 5, 3, seed=4)
    found = conv_layer(cell, theta, state, forward[:, None, None], backward[:, None, None], 1, 2)
    wanted = dense_layer(cell, theta, {name: value[:, 0, 0] for name, value in state.items()}, forward, backward, 2)
    for name in ("h", "c"):
        assert float((found[0][name][:, 0, 0] - wanted[0][name]).abs().max()) < EXACT
    assert float((found[1][:, 0, 0] - wanted[1]).abs().max()) < EXACT
    assert float((found[2][:, 0, 0] - wanted[2]).abs().max()) < EXACT


def test_truncated_normals() -> None:
    drawn = truncated_normal(key(0), (100_000,), torch.float64)
    assert float(drawn.abs().max()) <= 2.0
    assert float(drawn.mean()) == pytest.approx(0.0, abs=0.01)
    # Variance within two deviations: 1 - 2 * 2 pdf(2) / P(|z| < 2).
    wanted = 1.0 - 4.0 * math.exp(-2.0) / math.sqrt(2.0 * math.pi) / math.erf(2.0 / math.sqrt(2.0))
    assert float(drawn.var()) == pytest.approx(wanted, rel=0.02)


def test_a_fresh_state_differs_between_edges_and_keys_only() -> None:
    cell, theta, spec = LSTMCell(), init_cell_theta(CellSpec(), 0), NetworkSpec(stack_layers((25,), 3, (4,)))
    state = fresh_state(spec, cell, theta, key(0), 2)
    c = state["edges"]["layer0"]["c"]
    assert c.shape == (2, 25, 4, 16)
    assert torch.equal(c[0], c[1])
    assert float(c[..., 8:].abs().max()) == 0.0
    assert float(c.abs().max()) <= 2.0 / 5.0
    assert float(c[0, :, :, :8].std()) == pytest.approx(0.88 / 5.0, rel=0.1)
    assert not torch.equal(c, fresh_state(spec, cell, theta, key(1), 2)["edges"]["layer0"]["c"])
    assert not torch.equal(c[0, 0, 0], c[0, 0, 1])
    everything = [state["edges"]["layer0"]["h"], state["edges"]["layer1"]["h"], *state["backward"].values()]
    assert all(float(value.abs().max()) == 0.0 for value in everything)


def network(hidden: tuple[int, ...] = (), **options: object) -> tuple[NetworkSpec, LSTMCell, dict[str, Tensor], NetworkState]:
    """A float64 network of 6 features and 3 classes with random weights."""
    spec = NetworkSpec(stack_layers((6,), 3, hidden), **options)  # type: ignore[arg-type]
    cell, theta = LSTMCell(SMALL), theta_of(SMALL, "cell.")
    return spec, cell, theta, fresh_state(spec, cell, theta, key(0))


@pytest.mark.parametrize("schedule", ["forward", "forward_backward"])
@pytest.mark.parametrize("hidden", [(), (5, 4)])
def test_permuted_inputs_with_their_states_give_the_same_logits(hidden: tuple[int, ...], schedule: str) -> None:
    spec, cell, theta, state = network(hidden, schedule=schedule)
    xs, ys = stream(6, 3, steps=6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    _, wanted = run(spec, cell, theta, state, xs, ys)
    first = {name: value[:, order] for name, value in state["edges"]["layer0"].items()}
    moved: NetworkState = {**state, "edges": {**state["edges"], "layer0": first}}
    _, found = run(spec, cell, theta, moved, xs[..., order], ys)
    assert float((found - wanted).abs().max()) < EXACT
    assert float((wanted[1:] - wanted[:1]).abs().max()) > 1e-4


@pytest.mark.parametrize("schedule", ["forward", "forward_backward"])
def test_permuted_classes_with_their_states_permute_logits(schedule: str) -> None:
    spec, cell, theta, state = network((4,), schedule=schedule, feed_label=True)
    xs, ys = stream(6, 3, steps=6)
    order = torch.tensor([2, 0, 1])
    _, wanted = run(spec, cell, theta, state, xs, ys)
    last = {name: value[:, :, order] for name, value in state["edges"]["layer1"].items()}
    moved: NetworkState = {**state, "edges": {**state["edges"], "layer1": last}}
    _, found = run(spec, cell, theta, moved, xs, order.argsort()[ys])
    assert float((found - wanted[..., order]).abs().max()) < EXACT


@pytest.mark.parametrize("schedule", ["forward", "forward_backward"])
def test_copies_of_one_example_are_one_example(schedule: str) -> None:
    spec, cell, theta, state = network((4,), schedule=schedule)
    xs, ys = stream(6, 3, steps=6)
    _, wanted = run(spec, cell, theta, state, xs, ys)
    three = fresh_state(spec, cell, theta, key(0), 3)
    _, found = run(spec, cell, theta, three, xs.expand(-1, 3, -1), ys.expand(-1, 3))
    assert float((found - wanted).abs().max()) < EXACT


def test_zero_readouts_are_a_guess() -> None:
    spec, cell, theta, state = network()
    theta = {name: torch.zeros_like(value) if "out" in name else value for name, value in theta.items()}
    xs, ys = stream(6, 3)
    _, logits = run(spec, cell, theta, state, xs, ys)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ys.flatten())
    assert float(loss) == pytest.approx(math.log(3.0), abs=1e-12)


def test_logits_are_bounded() -> None:
    spec, cell, theta, state = network(logit_bound=2.0)
    theta = {name: 1e3 * value if "out" in name else value for name, value in theta.items()}
    _, logits = present(spec, cell, theta, state, draw(1, 6), torch.tensor([0]))
    assert 1.0 < float(logits.abs().max()) <= 2.0


def test_theta_of_each_layer() -> None:
    """With one theta a layer, equal ones are the tied network, and each layer depends on its own."""
    spec, cell, theta, state = network((4,))
    own = NetworkSpec(spec.layers, tied=False)
    copies = {name.replace("cell.", f"layer{k}."): value for name, value in theta.items() for k in range(2)}
    xs, ys = stream(6, 3, steps=4)
    _, wanted = run(spec, cell, theta, state, xs, ys)
    assert torch.equal(run(own, cell, copies, state, xs, ys)[1], wanted)
    for k in range(2):
        other = {**copies, f"layer{k}.bias": copies[f"layer{k}.bias"] + 0.5}
        assert float((run(own, cell, other, state, xs, ys)[1] - wanted).abs().max()) > 1e-4


# Root mean square of logit errors over that of logits, of the hand-set LSTM against online SGD; measured here, one value a size.
IMITATION_ERRORS = {1.0: 6.9e-2, 0.3: 7.3e-3, 0.1: 8.2e-4, 0.03: 7.4e-5}


@pytest.mark.parametrize("size", IMITATION_ERRORS)
def test_a_hand_set_lstm_is_online_sgd_up_to_second_order(size: float) -> None:
    layer = Dense(16, 4)
    spec, cell = NetworkSpec((layer,), ticks=1, reduce="sum", logit_bound=None), LSTMCell(IMITATION)
    zeros = torch.zeros(1, 16, 4, 5, dtype=torch.float64)
    state: NetworkState = {"edges": {"layer0": {"h": zeros, "c": zeros}}, "backward": no_messages(spec, 2)}
    xs, ys = separable(100)
    _, found = run(spec, cell, sgd_lstm_theta(size, 0.1), state, xs, ys)
    _, wanted = sgd((layer,), [torch.zeros(16, 4, dtype=torch.float64)], [0.1], xs, ys)
    error = float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
    assert error == pytest.approx(IMITATION_ERRORS[size], rel=0.1)
    agree = (found[1:].argmax(-1) == wanted[1:].argmax(-1)).double().mean()  # the first logits are all zero
    assert float(agree) > 0.9


def separable(steps: int) -> tuple[Tensor, Tensor]:
    """Examples of four class means in 16 dimensions, one a step."""
    noise, ys = stream(16, 4, steps=steps)
    return (draw(4, 16, seed=7)[ys] + noise) / math.sqrt(2.0), ys


def test_sizes_without_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="state must be >= 2, got 1"):
        CellSpec(state=1)
    with pytest.raises(ConfigError, match="message must be >= 2, got 1"):
        CellSpec(message=1)
