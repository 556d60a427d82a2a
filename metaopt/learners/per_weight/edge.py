"""What a layer of a per-weight network asks of the cell that stands on each of its edges, as pure functions.

The same layer code runs a meta-learned LSTM (`cell.LSTMCell`) and state machines that are known to be right (`analytic`), so that routing,
reductions, schedules and convolutions are tested exactly.

Legend: Bx examples side by side, M message size, n state entries of an edge. The axes of edges follow the example axis, entries come last.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

__all__ = ["Cell", "EdgeState", "Reduce", "expand_state", "messages", "share"]

EdgeState = dict[str, Tensor]  # each [Bx, *edges, n]
Reduce = Literal["mean", "sum"]
Theta = Mapping[str, Tensor]


class Cell(Protocol):
    """One edge's state machine, the same on all edges of a layer; hashable.

    Attributes:
        message: M, size of the messages in both directions.
        affine: whether both readouts are affine in what `readable` returns; then a layer averages first and reads once.
        shared: state entry -> how many of its leading numbers examples side by side share; the rest is private to each.
    """

    @property
    def message(self) -> int: ...

    @property
    def affine(self) -> bool: ...

    @property
    def shared(self) -> Mapping[str, int]: ...

    def __hash__(self) -> int: ...

    def fresh(self, theta: Theta, key: Tensor, edges: Sequence[int], fan_in: int) -> EdgeState:
        """Return the initial state [*edges, n] of a layer whose outputs read `fan_in` inputs each; all randomness comes from the key."""

    def drive(self, theta: Theta, forward: Tensor, backward: Tensor) -> Any:
        """Return what incoming messages contribute to a tick: made once for all micro-ticks, between which messages do not change.

        Args:
            forward: [Bx, *edges, M] with size 1 on the output axis.
            backward: [Bx, *edges, M] with size 1 on the input axes.
        """

    def tick(self, theta: Theta, state: EdgeState, drive: Any) -> EdgeState:
        """Return the state after one micro-tick."""

    def readable(self, state: EdgeState) -> Tensor:
        """Return the part [Bx, *edges, r] of the state that readouts see."""

    def read_forward(self, theta: Theta, seen: Tensor) -> Tensor:
        """Return forward messages [..., M] of [..., r]."""

    def read_backward(self, theta: Theta, seen: Tensor) -> Tensor:
        """Return backward messages [..., M] of [..., r]."""


def messages(cell: Cell, theta: Theta, seen: Tensor, axes: tuple[int, ...], reduce: Reduce, forward: bool) -> Tensor:
    """Return outgoing messages: readouts of the edges [Bx, *edges, r], reduced over the axes of those that meet.

    An affine readout commutes with the mean, so that it is applied once a sum instead of once an edge.
    """
    read = cell.read_forward if forward else cell.read_backward
    out = read(theta, seen.mean(axes)) if cell.affine else read(theta, seen).mean(axes)
    if reduce == "mean":
        return out
    count = 1
    for axis in axes:
        count *= seen.shape[axis]
    return out * count


def share(cell: Cell, state: EdgeState) -> EdgeState:
    """Return the state with the shared numbers of each entry replaced by their mean over examples, on axis 0; itself if there is one."""
    mixed = {}
    for name, value in state.items():
        count = cell.shared.get(name, 0) if value.shape[0] > 1 else 0
        if count:
            common, private = value[..., :count], value[..., count:]
            value = torch.cat([common.mean(0, keepdim=True).expand_as(common), private], -1)
        mixed[name] = value
    return mixed


def expand_state(state: EdgeState, examples: int) -> EdgeState:
    """Return a state for another number of examples side by side: the mean over those that there were, for each of the new ones."""
    return {name: value.mean(0, keepdim=True).expand(examples, *value.shape[1:]) for name, value in state.items()}
