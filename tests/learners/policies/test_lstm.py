"""The layer-normalised LSTM against its equations in numpy, and the hand-written backward pass against finite differences and autograd."""

import numpy as np
import pytest
import torch

from metaopt import seeds
from metaopt.learners.policies.lstm import LayerNormLSTM, _Sequences, lstm_sequences

KEY = seeds.key("test lstm")
SIZES = [[3, 3, 3], [4, 2, 2, 1], [1], [2, 1, 1, 1]]


def draw(stream: int, *shape: int) -> torch.Tensor:
    return seeds.normal(seeds.fold_in(KEY, stream), shape, torch.float64)


def cell(inputs: int, hidden: int, stream: int = 0) -> LayerNormLSTM:
    made = LayerNormLSTM(inputs, hidden, seeds.fold_in(KEY, stream)).double()
    with torch.no_grad():  # gains and shifts away from 1 and 0, where mistakes hide
        for place, p in enumerate(made.parameters()):
            p += 0.3 * draw(1000 + 10 * stream + place, *p.shape)
    return made


def padded_run(net: LayerNormLSTM, x: list[torch.Tensor], h: torch.Tensor, c: torch.Tensor) -> list[list[torch.Tensor]]:
    """Each episode alone, one step after the other."""
    outputs = []
    for episode, inputs in enumerate(x):
        state, rows = (h[episode], c[episode]), []
        for row in inputs:
            state = net.step(row, state)
            rows.append(state[0])
        outputs.append(rows)
    return outputs


def test_a_step_is_the_equations() -> None:
    net = cell(5, 3)
    x, h, c = draw(1, 5).numpy(), draw(2, 3).numpy(), draw(3, 3).numpy()
    p = {name: value.detach().numpy() for name, value in net.named_parameters()}

    def norm(a: np.ndarray) -> np.ndarray:
        return (a - a.mean()) / np.sqrt(((a - a.mean()) ** 2).mean() + 1e-5)

    def sigmoid(a: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-a))

    gates = p["input_gain"] * norm(p["input_weight"] @ x) + p["shift"] + p["gate_gain"] * norm(p["weight"] @ h)
    o, f, i, g = gates[:3], gates[3:6], gates[6:9], gates[9:]
    new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    new_h = sigmoid(o) * np.tanh(p["cell_gain"] * norm(new_c) + p["cell_shift"])
    got_h, got_c = net.step(torch.from_numpy(x), (torch.from_numpy(h), torch.from_numpy(c)))
    np.testing.assert_allclose(got_h.detach(), new_h, rtol=1e-12)
    np.testing.assert_allclose(got_c.detach(), new_c, rtol=1e-12)


@pytest.mark.parametrize(("cells", "sizes"), [(1, [2, 2]), (2, [3, 2, 1])])
def test_backward_against_finite_differences(cells: int, sizes: list[int]) -> None:
    rows, episodes, hidden = sum(sizes), sizes[0], 2
    shapes = [(rows, cells, 4 * hidden), (episodes, cells, hidden), (episodes, cells, hidden), (cells, 4 * hidden)]
    shapes += [(cells, hidden), (cells, hidden), (cells, 4 * hidden, hidden)]
    given = [draw(place, *shape).requires_grad_() for place, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(lambda *tensors: _Sequences.apply(sizes, *tensors), given)


@pytest.mark.parametrize("sizes", SIZES)
def test_packed_sequences_are_the_steps(sizes: list[int]) -> None:
    nets = [cell(5, 4, stream) for stream in (0, 1)]
    lengths = [sum(size > e for size in sizes) for e in range(sizes[0])]
    states = [(draw(20 + k, sizes[0], 4).requires_grad_(), draw(30 + k, sizes[0], 4).requires_grad_()) for k in (0, 1)]
    inputs = [[draw(40 + 10 * k + e, length, 5).requires_grad_() for e, length in enumerate(lengths)] for k in (0, 1)]
    weight = draw(60, sum(sizes), 2, 4)

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        leaves = [p for net in nets for p in net.parameters()] + [s for state in states for s in state] + [x for xs in inputs for x in xs]
        return list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))

    packed = [torch.stack([x[e][t] for t, n in enumerate(sizes) for e in range(n)]) for x in inputs]
    together = lstm_sequences(nets, packed, states, sizes)
    alone = [padded_run(net, x, *state) for net, x, state in zip(nets, inputs, states, strict=True)]
    expected = [torch.stack([rows[e][t] for t, n in enumerate(sizes) for e in range(n)]) for rows in alone]
    for (out, (h, _)), wanted in zip(together, expected, strict=True):
        torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-14)
        assert torch.equal(h, out[-sizes[-1] :])
    got = gradients(sum((weight[:, k] * out).sum() + state[1].sum() for k, (out, state) in enumerate(together)))
    last_c = []
    for net, x, state in zip(nets, inputs, states, strict=True):
        for e in range(sizes[-1]):
            carried = (state[0][e], state[1][e])
            for row in x[e]:
                carried = net.step(row, carried)
            last_c.append(carried[1].sum())
    wanted = gradients(sum((weight[:, k] * out).sum() for k, out in enumerate(expected)) + sum(last_c))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_without_gradients_nothing_is_kept() -> None:
    net = cell(5, 4)
    with torch.no_grad():
        ((out, _),) = lstm_sequences([net], [draw(1, 6, 5)], [(torch.zeros(3, 4).double(), torch.zeros(3, 4).double())], [3, 3])
    assert not out.requires_grad
    assert out.grad_fn is None


def test_a_fresh_cell_is_a_function_of_its_key_and_remembers() -> None:
    a, b = (LayerNormLSTM(6, 8, seeds.key("cell")) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.weight, LayerNormLSTM(6, 8, seeds.key("other")).weight)
    assert torch.equal(a.shift, torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(8))
