"""The LSTM cell against torch's, its offsets by hand, and its derivatives."""

import pytest
import torch
from torch import Tensor

from metaopt.learners.forward_mode import jvp
from metaopt.learners.lstm_cell import lstm_cell

_D, _H, _N = 3, 4, 5


def _weights(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4 * _H, _D), (4 * _H, _H), (4 * _H,))
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)  # type: ignore[return-value]


def _inputs(seed: int = 1, *batch: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*batch, size, generator=generator, dtype=torch.float64) for size in (_D, _H, _H))  # type: ignore[return-value]


def _torch_cell(input_weight: Tensor, hidden_weight: Tensor, bias: Tensor) -> torch.nn.LSTMCell:
    """torch's cell with the same weights: its gates are i, f, g, o, and its second bias stays zero."""
    cell = torch.nn.LSTMCell(_D, _H, dtype=torch.float64)
    order = torch.cat([torch.arange(_H) + gate * _H for gate in (0, 2, 1, 3)])
    with torch.no_grad():
        cell.weight_ih.copy_(input_weight[order])
        cell.weight_hh.copy_(hidden_weight[order])
        cell.bias_ih.copy_(bias[order])
        cell.bias_hh.zero_()
    return cell


def test_equals_torchs_cell_with_gates_in_its_order_over_steps():
    weights = _weights()
    theirs, cell = _inputs(1, _N)[1:], _torch_cell(*weights)
    ours = theirs
    for step in range(4):
        x = _inputs(10 + step, _N)[0]
        ours = lstm_cell(x, *ours, *weights)
        theirs = cell(x, theirs)
        for mine, reference in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, reference, rtol=1e-13, atol=1e-13)


def test_offsets_are_those_of_the_two_gates():
    input_weight, hidden_weight, bias = _weights()
    shifted = bias.clone()
    shifted[:_H] -= 0.7
    shifted[2 * _H : 3 * _H] += 1.3
    inputs = _inputs(2, _N)
    by_option = lstm_cell(*inputs, input_weight, hidden_weight, bias, forget_bias=1.3, input_bias=0.7)
    by_hand = lstm_cell(*inputs, input_weight, hidden_weight, shifted)
    for one, other in zip(by_option, by_hand, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-14)


def test_open_and_shut_gates_remember_and_replace():
    zero_input, zero_hidden, bias = torch.zeros(4 * _H, _D), torch.zeros(4 * _H, _H), torch.zeros(4 * _H)
    x, h, c = (one.float() for one in _inputs(3, _N))
    _, kept = lstm_cell(x, h, c, zero_input, zero_hidden, bias, forget_bias=50.0, input_bias=50.0)
    assert torch.equal(kept, c)
    bias[_H : 2 * _H] = 0.5
    _, replaced = lstm_cell(x, h, c, zero_input, zero_hidden, bias, forget_bias=-50.0, input_bias=-50.0)
    torch.testing.assert_close(replaced, torch.full_like(c, 0.5).tanh())


@pytest.mark.parametrize("batch", [(), (_N,), (2, _N)])
def test_leading_axes_are_a_batch(batch: tuple[int, ...]):
    weights, inputs = _weights(), _inputs(4, *batch)
    whole = lstm_cell(*inputs, *weights)
    flat = [one.reshape(-1, one.shape[-1]) for one in inputs]
    each = [lstm_cell(*one, *weights) for one in zip(*flat, strict=True)]
    for got, parts in zip(whole, zip(*each, strict=True), strict=True):
        assert got.shape == (*batch, _H)
        torch.testing.assert_close(got.reshape(-1, _H), torch.stack(parts), rtol=1e-13, atol=1e-13)


def test_vmap_over_weights_equals_a_loop():
    weights = [torch.stack(pair) for pair in zip(_weights(5), _weights(6), strict=True)]
    inputs = _inputs(7, 2, _N)
    stacked = torch.func.vmap(lstm_cell)(*inputs, *weights)
    for i in range(2):
        alone = lstm_cell(*(one[i] for one in inputs), *(one[i] for one in weights))
        for got, expected in zip(stacked, alone, strict=True):
            torch.testing.assert_close(got[i], expected, rtol=1e-13, atol=1e-13)


def test_first_and_second_derivatives_are_those_of_finite_differences():
    arguments = [one.requires_grad_() for one in (*_inputs(8, 2), *_weights(9))]
    assert torch.autograd.gradcheck(lstm_cell, arguments)
    assert torch.autograd.gradgradcheck(lstm_cell, arguments)


def test_forward_mode_agrees_with_reverse_mode():
    inputs, weights = _inputs(11, _N), _weights(12)

    def total(bias: Tensor) -> Tensor:
        h, c = lstm_cell(*inputs, *weights[:2], bias)
        return (h * c).sum()

    direction = torch.linspace(-1.0, 1.0, 4 * _H, dtype=torch.float64)
    _, slope = jvp(total, (weights[2],), (direction,))
    torch.testing.assert_close(slope, torch.func.grad(total)(weights[2]) @ direction, rtol=1e-12, atol=1e-12)
