"""A layer-normalised LSTM: one step in plain operations, and a whole sequence with a backward pass written by hand.

With [o, f, i, g] the four gates, and LN without constants of its own,

    gates = a_x LN(W_x x) + b + a_h LN(W_h h)
    c' = sigmoid(f) c + sigmoid(i) tanh(g)
    h' = sigmoid(o) tanh(a_c LN(c') + b_c).

The input's part, a_x LN(W_x x) + b, knows nothing of h: `input_gates` makes it for all decisions in one product. What is left to do one
decision after the other is 10 operations forward and 9 backward; autograd would need about 60. Whatever does not depend on the recursion
(derivatives of gates, gradients of weights) is done for all decisions at once, before or after the loop.

Sequences of different length are packed: row by row, first decision 0 of all episodes, then decision 1 of those that have one, and so on,
episodes by falling length. Padding is never computed, so that it can change nothing.

Source: Ba, Kiros, Hinton, 2016, "Layer normalization" (1607.06450), equations 20 to 22. Differs: one shift b for both parts of the gates
(their sum is all that counts); H weights fewer.

Legend: T decisions, E episodes, N packed rows (the valid decisions), H hidden units, I inputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from metaopt import seeds

__all__ = ["LSTMState", "LayerNormLSTM", "lstm_sequence", "lstm_step"]

EPS = 1e-5  # that of torch's layer norms
FORGET_SHIFT = 1.0  # a fresh cell remembers; Jozefowicz et al., 2015

LSTMState = tuple[Tensor, Tensor]
_norm_backward = torch.ops.aten.native_layer_norm_backward.default


def lstm_step(gates: Tensor, state: LSTMState, weight: Tensor, gate_gain: Tensor, cell_gain: Tensor, cell_shift: Tensor) -> LSTMState:
    """Return the state (h, c), each [..., H], after one decision; plain differentiable operations, also under `torch.func.vmap`.

    Args:
        gates: the input's part, [..., 4H].
        state: (h, c) before, each [..., H].
        weight: W_h, [4H, H].
        gate_gain: a_h, [4H].
        cell_gain: a_c, [H].
        cell_shift: b_c, [H].
    """
    h, c = state
    hidden = h.shape[-1]
    gates = gates + F.layer_norm(F.linear(h, weight), (4 * hidden,), gate_gain, None, EPS)
    o, f, i, g = torch.split(gates, hidden, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * F.layer_norm(c, (hidden,), cell_gain, cell_shift, EPS).tanh(), c


class _Sequence(torch.autograd.Function):
    """The loop over T of `lstm_step`, and its derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        h0: Tensor,
        c0: Tensor,
        weight: Tensor,
        gate_gain: Tensor,
        cell_gain: Tensor,
        cell_shift: Tensor,
        sizes: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        hidden = h0.shape[-1]
        width = (4 * hidden,)
        keep = any(ctx.needs_input_grad)
        turned = weight.t().contiguous()
        out = gates.new_empty((gates.shape[0], hidden))
        h, c = h0, c0
        kept: list[tuple[Tensor, ...]] = []
        for gates_t, out_t in zip(torch.split(gates, list(sizes)), torch.split(out, list(sizes)), strict=True):
            n = gates_t.shape[0]
            before = h[:n]
            raw = before @ turned
            y, mean, scale = torch.native_layer_norm(raw, width, gate_gain, None, EPS)
            y += gates_t
            y[:, : 3 * hidden].sigmoid_()
            y[:, 3 * hidden :].tanh_()
            o, f, i, g = torch.split(y, hidden, dim=1)
            c_before = c[:n]
            c = torch.addcmul(f * c_before, i, g)
            z, c_mean, c_scale = torch.native_layer_norm(c, (hidden,), cell_gain, cell_shift, EPS)
            z.tanh_()
            h = torch.mul(o, z, out=out_t)
            if keep:
                kept.append((before, c_before, raw, mean, scale, y, c, c_mean, c_scale, z))
        if keep:
            ctx.sizes = sizes
            ctx.save_for_backward(weight, gate_gain, cell_gain, cell_shift, *(torch.cat(column) for column in zip(*kept, strict=True)))
        return out, c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        weight, gate_gain, cell_gain, cell_shift, before, c_before, raw, mean, scale, y, c, c_mean, c_scale, z = ctx.saved_tensors
        sizes, hidden = ctx.sizes, weight.shape[1]
        width, only_input = (4 * hidden,), [True, False, False]
        o, f, i, g = torch.split(y, hidden, dim=1)
        # derivatives of the gates: h' by o, and by the normalised cell; c' by f, i and g
        by_o = z * o * (1 - o)
        by_z = torch.addcmul(o, o * z, z, value=-1)
        by_gate = torch.stack([c_before * f * (1 - f), g * i * (1 - i), i * (1 - g * g)], dim=1)
        d_gates = torch.empty_like(y)
        d_raw: list[Tensor] = []
        d_norm = torch.empty_like(z)
        dh, dc = d_out.new_zeros((sizes[0], hidden)), d_out.new_zeros((sizes[0], hidden))
        dc[: sizes[-1]] = d_last
        columns = (d_out, by_o, by_z, by_gate, f, raw, mean, scale, c, c_mean, c_scale, d_gates, d_norm)
        for step in reversed(list(zip(*(torch.split(column, list(sizes)) for column in columns), strict=True))):
            d_out_t, by_o_t, by_z_t, by_gate_t, f_t, raw_t, mean_t, scale_t, c_t, c_mean_t, c_scale_t, d_gates_t, d_norm_t = step
            n = d_out_t.shape[0]
            dh_t, dc_t = dh[:n], dc[:n]  # rows of episodes that had ended are still 0
            dh_t += d_out_t
            torch.mul(dh_t, by_o_t, out=d_gates_t[:, :hidden])
            torch.mul(dh_t, by_z_t, out=d_norm_t)
            dc_t += _norm_backward(d_norm_t, c_t, (hidden,), c_mean_t, c_scale_t, cell_gain, cell_shift, only_input)[0]
            torch.mul(dc_t[:, None], by_gate_t, out=d_gates_t[:, hidden:].unflatten(1, (3, hidden)))
            dc_t *= f_t
            d_raw_t = _norm_backward(d_gates_t, raw_t, width, mean_t, scale_t, gate_gain, None, only_input)[0]
            torch.mm(d_raw_t, weight, out=dh_t)
            d_raw.append(d_raw_t)
        d_raw_all = torch.cat(d_raw[::-1])
        d_weight = d_raw_all.t() @ before
        d_gate_gain = (d_gates * ((raw - mean) * scale)).sum(0)
        d_cell_gain = (d_norm * ((c - c_mean) * c_scale)).sum(0)
        return d_gates, dh, dc, d_weight, d_gate_gain, d_cell_gain, d_norm.sum(0), None


def lstm_sequence(
    gates: Tensor,
    state: LSTMState,
    weight: Tensor,
    gate_gain: Tensor,
    cell_gain: Tensor,
    cell_shift: Tensor,
    sizes: tuple[int, ...],
) -> tuple[Tensor, LSTMState]:
    """Return h of all packed rows, [N, H], and the state of the `sizes[-1]` episodes that reach the last decision.

    The first derivative only, and not under `torch.func`: `lstm_step` is for that.

    Args:
        gates: the input's part, packed, [N, 4H].
        state: (h, c) before, each [E, H], episodes by falling length.
        weight, gate_gain, cell_gain, cell_shift: as in `lstm_step`.
        sizes: how many episodes have a decision t, for t = 0 .. T - 1; never rising, above 0, the first is E, the sum N.
    """
    out, c = _Sequence.apply(gates, *state, weight, gate_gain, cell_gain, cell_shift, sizes)  # type: ignore[no-untyped-call]
    return out, (out[-sizes[-1] :], c)


class LayerNormLSTM(nn.Module):
    """The cell with its weights.

    Args:
        inputs: I.
        hidden: H.
        key: the initial weights are a function of it: normal with variance 1 / I and 1 / H, gains 1, shifts 0 but for the forget gate.
    """

    def __init__(self, inputs: int, hidden: int, key: Tensor) -> None:
        super().__init__()
        self.hidden = hidden
        self.input_weight = nn.Parameter(seeds.normal(seeds.fold_in(key, 0), (4 * hidden, inputs)) * inputs**-0.5)
        self.input_gain = nn.Parameter(torch.ones(4 * hidden))
        shift = torch.zeros(4 * hidden)
        shift[hidden : 2 * hidden] = FORGET_SHIFT
        self.shift = nn.Parameter(shift)
        self.weight = nn.Parameter(seeds.normal(seeds.fold_in(key, 1), (4 * hidden, hidden)) * hidden**-0.5)
        self.gate_gain = nn.Parameter(torch.ones(4 * hidden))
        self.cell_gain = nn.Parameter(torch.ones(hidden))
        self.cell_shift = nn.Parameter(torch.zeros(hidden))

    def input_gates(self, x: Tensor) -> Tensor:
        """Return the input's part of the gates, [..., 4H], of inputs [..., I]."""
        return F.layer_norm(F.linear(x, self.input_weight), (4 * self.hidden,), self.input_gain, self.shift, EPS)

    def step(self, x: Tensor, state: LSTMState) -> LSTMState:
        """Return the state after one decision with the input x, [..., I]."""
        return lstm_step(self.input_gates(x), state, self.weight, self.gate_gain, self.cell_gain, self.cell_shift)

    def sequence(self, x: Tensor, state: LSTMState, sizes: tuple[int, ...]) -> tuple[Tensor, LSTMState]:
        """Return h of all packed rows, [N, H], and the last state (see `lstm_sequence`), of inputs [N, I]."""
        return lstm_sequence(self.input_gates(x), state, self.weight, self.gate_gain, self.cell_gain, self.cell_shift, sizes)
