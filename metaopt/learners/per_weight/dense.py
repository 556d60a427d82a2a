"""A fully connected layer of edges with a cell on each.

Legend: Bx examples side by side, A inputs, B outputs, M message size, n state entries of an edge.
"""

from dataclasses import dataclass

from torch import Tensor

from metaopt.learners.per_weight.edge import Cell, EdgeState, Reduce, Theta, messages

__all__ = ["Dense", "dense_layer"]


def dense_layer(
    cell: Cell, theta: Theta, state: EdgeState, forward: Tensor, backward: Tensor, ticks: int = 1, reduce: Reduce = "mean"
) -> tuple[EdgeState, Tensor, Tensor]:
    """Return (state, forward messages out [Bx, B, M], backward messages out [Bx, A, M]) after some micro-ticks.

    Messages in do not change between micro-ticks, and only the last messages are sent on.

    Args:
        cell: what stands on each edge.
        theta: the cell's weights.
        state: entries [Bx, A, B, n].
        forward: [Bx, A, M].
        backward: [Bx, B, M].
        ticks: micro-ticks, >= 1.
        reduce: how the messages of edges that meet become one.

    Source: Kirsch, Schmidhuber, 2021, "Meta learning backpropagation and improving it" (2012.14905), equations 6 and 7 (which sum).
    """
    drive = cell.drive(theta, forward.unsqueeze(2), backward.unsqueeze(1))
    for _ in range(ticks):
        state = cell.tick(theta, state, drive)
    seen = cell.readable(state)
    return state, messages(cell, theta, seen, (1,), reduce, True), messages(cell, theta, seen, (2,), reduce, False)


@dataclass(frozen=True)
class Dense:
    """`dense_layer` with its shape.

    Attributes:
        inputs: A.
        outputs: B.
    """

    inputs: int
    outputs: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Axes of forward messages in, between Bx and M."""
        return (self.inputs,)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Axes of forward messages out, between Bx and M."""
        return (self.outputs,)

    @property
    def edges(self) -> tuple[int, ...]:
        """Axes of the state, between Bx and its entries."""
        return (self.inputs, self.outputs)

    @property
    def fan_in(self) -> int:
        """Edges that an output reads."""
        return self.inputs

    def __call__(
        self, cell: Cell, theta: Theta, state: EdgeState, forward: Tensor, backward: Tensor, ticks: int, reduce: Reduce
    ) -> tuple[EdgeState, Tensor, Tensor]:
        """Return `dense_layer` of the arguments."""
        return dense_layer(cell, theta, state, forward, backward, ticks, reduce)
