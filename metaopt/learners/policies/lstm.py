"""A layer-normalised LSTM: one step in plain operations, and a whole sequence with a backward pass written by hand.

With [o, f, i, g] the four gates, and LN without constants of its own,

    gates = a_x LN(W_x x) + b + a_h LN(W_h h)
    c' = sigmoid(f) c + sigmoid(i) tanh(g)
    h' = sigmoid(o) tanh(a_c LN(c') + b_c).

The input's part, a_x LN(W_x x) + b, knows nothing of h: `input_gates` makes it for all decisions in one product. What is left to do one
decision after the other is 11 operations forward and 10 backward, where autograd would need about 60, and cells side by side share them.
Whatever does not depend on the recursion (derivatives of gates, gradients of weights) is done for all decisions at once, before or after
the loop.

Sequences of different length are packed: row by row, first decision 0 of all episodes, then decision 1 of those that have one, and so on,
episodes by falling length. Padding is never computed, so that it can change nothing.

Source: Ba, Kiros, Hinton, 2016, "Layer normalization" (1607.06450), equations 20 to 22. Differs: one shift b for both parts of the gates
(their sum is all that counts); H weights fewer.

Legend: T decisions, E episodes, N packed rows (the valid decisions), H hidden units, I inputs, G cells.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from metaopt import seeds

__all__ = ["LSTMState", "LayerNormLSTM", "lstm_sequences", "lstm_step"]

EPS = 1e-5  # that of torch's layer norms
FORGET_SHIFT = 1.0  # a fresh cell remembers; Jozefowicz et al., 2015

LSTMState = tuple[Tensor, Tensor]
_ONLY_INPUT = [True, False, False]
_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_sigmoid_backward, _sigmoid_backward_to = torch.ops.aten.sigmoid_backward.default, torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward, _tanh_backward_to = torch.ops.aten.tanh_backward.default, torch.ops.aten.tanh_backward.grad_input


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


class _Sequences(torch.autograd.Function):
    """The loop over T of `lstm_step` for G cells side by side, and its derivative.

    Packed rows are [N, G, .]; n of them belong to one decision. Buffers for all decisions are split once, so that the loop does not slice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        sizes: list[int],
        gates: Tensor,
        h0: Tensor,
        c0: Tensor,
        gate_gain: Tensor,
        cell_gain: Tensor,
        cell_shift: Tensor,
        weight: Tensor,
    ) -> tuple[Tensor, Tensor]:
        hidden = h0.shape[-1]
        raw, y = torch.empty_like(gates), torch.empty_like(gates)
        c, z, out = (gates.new_empty((*gates.shape[:2], hidden)) for _ in range(3))
        turned = weight.transpose(1, 2)
        columns = (gates, raw, y, y[..., : 3 * hidden], *torch.split(y, hidden, dim=-1), c, z, out)
        norms: list[tuple[Tensor, ...]] = []
        h_before, c_before = h0, c0
        for step in zip(*(torch.split(column, sizes) for column in columns), strict=True):
            gates_t, raw_t, y_t, sigmoids_t, o_t, f_t, i_t, g_t, c_t, z_t, out_t = step
            if (n := len(out_t)) < len(h_before):
                h_before, c_before = h_before[:n], c_before[:n]
            torch.bmm(h_before.transpose(0, 1), turned, out=raw_t.transpose(0, 1))
            normal, mean, scale = torch.native_layer_norm(raw_t, (4 * hidden,), None, None, EPS)
            torch.addcmul(gates_t, normal, gate_gain, out=y_t)
            sigmoids_t.sigmoid_()
            g_t.tanh_()
            torch.mul(f_t, c_before, out=c_t).addcmul_(i_t, g_t)
            c_normal, c_mean, c_scale = torch.native_layer_norm(c_t, (hidden,), None, None, EPS)
            torch.addcmul(cell_shift, c_normal, cell_gain, out=z_t).tanh_()
            torch.mul(o_t, z_t, out=out_t)
            norms.append((normal, mean, scale, c_normal, c_mean, c_scale))
            h_before, c_before = out_t, c_t
        if any(ctx.needs_input_grad):
            ctx.sizes, ctx.norms = sizes, norms
            ctx.save_for_backward(h0, c0, gate_gain, cell_gain, raw, y, c, z, out, weight)
        return out, c_before.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        h0, c0, gate_gain, cell_gain, raw, y, c, z, out, weight = ctx.saved_tensors
        sizes, hidden = ctx.sizes, h0.shape[-1]
        o, f, i, g = torch.split(y, hidden, dim=-1)
        # derivatives of h' by the gate o and by the normalised cell, and of c' by the gates f, i, g
        by_o = _sigmoid_backward(z, o)
        by_z = _tanh_backward(o, z)
        by_fig = o.new_empty((*c.shape[:2], 3, hidden))
        _sigmoid_backward_to(_before(c, c0, sizes), f, grad_input=by_fig[:, :, 0])
        _sigmoid_backward_to(g, i, grad_input=by_fig[:, :, 1])
        _tanh_backward_to(i, g, grad_input=by_fig[:, :, 2])
        d_gates = torch.empty_like(raw)
        d_gates_o, d_gates_fig = d_gates[..., :hidden], d_gates[..., hidden:].view(*c.shape[:2], 3, hidden)
        dh, d_raw = d_out.clone(), []
        dh_flow, dc_flow = torch.zeros_like(h0), torch.zeros_like(c0)  # rows of episodes that had ended stay 0
        dc_flow[: sizes[-1]] = d_last
        columns = (dh, by_o, by_z * cell_gain, by_fig, f, raw, c, d_gates, d_gates_o, d_gates_fig)
        steps = list(zip(*(torch.split(column, sizes) for column in columns), ctx.norms, strict=True))
        n = 0
        for dh_t, by_o_t, by_z_t, by_fig_t, f_t, raw_t, c_t, d_gates_t, d_gates_o_t, d_gates_fig_t, norms in reversed(steps):
            _, mean, scale, _, c_mean, c_scale = norms
            if len(dh_t) != n:
                n = len(dh_t)
                dh_before, dc_before = dh_flow[:n], dc_flow[:n]
                dh_before_of = dh_before.transpose(0, 1)
            dh_t += dh_before
            dc_t = _norm_backward(dh_t * by_z_t, c_t, (hidden,), c_mean, c_scale, None, None, _ONLY_INPUT)[0]
            dc_t += dc_before
            torch.mul(dh_t, by_o_t, out=d_gates_o_t)
            torch.mul(dc_t.unsqueeze(2), by_fig_t, out=d_gates_fig_t)
            torch.mul(dc_t, f_t, out=dc_before)
            d_raw_t = _norm_backward(d_gates_t * gate_gain, raw_t, (4 * hidden,), mean, scale, None, None, _ONLY_INPUT)[0]
            torch.bmm(d_raw_t.transpose(0, 1), weight, out=dh_before_of)
            d_raw.append(d_raw_t)
        normal, c_normal = (torch.cat([norms[k] for norms in ctx.norms]) for k in (0, 3))
        d_shift = dh * by_z
        d_weight = torch.bmm(torch.cat(d_raw[::-1]).permute(1, 2, 0), _before(out, h0, sizes).transpose(0, 1))
        d_gains = (d_gates * normal).sum(0), (d_shift * c_normal).sum(0)
        return None, d_gates, dh_flow, dc_flow, *d_gains, d_shift.sum(0), d_weight


def _before(packed: Tensor, start: Tensor, sizes: list[int]) -> Tensor:
    """Return the packed rows of the decision before each, `start` for the first."""
    rows = torch.split(packed, sizes)
    return torch.cat([start, *(row[:n] for row, n in zip(rows, sizes[1:], strict=False))])


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


def lstm_sequences(
    cells: Sequence[LayerNormLSTM], inputs: Sequence[Tensor], states: Sequence[LSTMState], sizes: Sequence[int]
) -> list[tuple[Tensor, LSTMState]]:
    """Return, for each cell, h of all packed rows, [N, H], and the state of the `sizes[-1]` episodes that reach the last decision.

    Cells of one size that read the same episodes go side by side, which costs little more than one of them. The first derivative only, and
    not under `torch.func`: `LayerNormLSTM.step` is for that.

    Args:
        cells: G cells of equal H.
        inputs: of each cell, packed, [N, I].
        states: (h, c) of each before the first decision, each [E, H], episodes by falling length.
        sizes: how many episodes have a decision t, for t = 0 .. T - 1; never rising, above 0, the first is E, the sum N.
    """
    gates = torch.stack([cell.input_gates(x) for cell, x in zip(cells, inputs, strict=True)], dim=1)
    h0, c0 = (torch.stack(parts, dim=1) for parts in zip(*states, strict=True))
    own = zip(*((cell.gate_gain, cell.cell_gain, cell.cell_shift, cell.weight) for cell in cells), strict=True)
    weights = [torch.stack(parts) for parts in own]
    out, c = _Sequences.apply(list(sizes), gates, h0, c0, *weights)  # type: ignore[no-untyped-call]
    return [(out_of, (out_of[-sizes[-1] :], c_of)) for out_of, c_of in zip(out.unbind(1), c.unbind(1), strict=True)]
