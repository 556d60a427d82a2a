"""A convolution of edges: one state for each (offset, input channel, output channel), run at every output position, then averaged.

Output position p and offset r connect to input position p * stride + r - kernel // 2, padded with zero messages, so that an output has
ceil(side / stride) positions. Messages are computed before states are averaged.

Legend: Bx examples side by side, H, W input sides, P, Q output sides, k kernel, I, O channels, M message size, n state entries of an edge.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from metaopt.errors import ConfigError
from metaopt.learners.per_weight.edge import Cell, EdgeState, Reduce, Theta, messages

__all__ = ["Conv", "conv_layer"]


def conv_layer(
    cell: Cell,
    theta: Theta,
    state: EdgeState,
    forward: Tensor,
    backward: Tensor,
    stride: int = 1,
    ticks: int = 1,
    reduce: Reduce = "mean",
) -> tuple[EdgeState, Tensor, Tensor]:
    """Return (state, forward messages out [Bx, P, Q, O, M], backward messages out [Bx, H, W, I, M]) after some micro-ticks.

    States are averaged over positions after every micro-tick. An input's backward message is reduced over all pairs of a position and an
    offset that reach it, and over output channels. Memory: P * Q * k * k * I * O states.

    Args:
        cell: what stands on each edge.
        theta: the cell's weights.
        state: entries [Bx, k, k, I, O, n].
        forward: [Bx, H, W, I, M].
        backward: [Bx, P, Q, O, M].
        stride: input positions between two neighbouring outputs.
        ticks: micro-ticks, >= 1.
        reduce: how the messages of edges that meet become one.

    Source: the conv layers of the release of 2012.14905. Differs: backward messages reach all inputs, whatever kernel and stride.
    """
    kernel = next(iter(state.values())).shape[1]
    patches = _unfold(forward, kernel, stride)  # [Bx, P, Q, k, k, I, M]
    drive = cell.drive(theta, patches.unsqueeze(6), backward[:, :, :, None, None, None])
    for _ in range(ticks):
        local = cell.tick(theta, {name: value[:, None, None] for name, value in state.items()}, drive)
        state = {name: value.mean((1, 2)) for name, value in local.items()}
    seen = cell.readable(local)  # [Bx, P, Q, k, k, I, O, r]
    out = messages(cell, theta, seen, (3, 4, 5), reduce, True)
    back = _fold(messages(cell, theta, seen, (6,), reduce, False), forward.shape[1:3], stride)
    if reduce == "mean":
        hits = _fold(back.new_ones((1, *patches.shape[1:5], 1, 1)), forward.shape[1:3], stride)
        back = back / hits.clamp(min=1.0)
    return state, out, back


def _padding(kernel: int) -> tuple[int, int]:
    return kernel // 2, kernel - 1 - kernel // 2


def _unfold(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Return the patches [Bx, P, Q, k, k, I, M] of x [Bx, H, W, I, M]."""
    padded = F.pad(x, (0, 0, 0, 0, *_padding(kernel), *_padding(kernel)))
    return padded.unfold(1, kernel, stride).unfold(2, kernel, stride).permute(0, 1, 2, 5, 6, 3, 4)


def _fold(patches: Tensor, sides: tuple[int, ...], stride: int) -> Tensor:
    """Return the sums [Bx, H, W, I, M] of patches [Bx, P, Q, k, k, I, M] where they overlap: the adjoint of `_unfold`."""
    batch, rows, columns, kernel, _, channels, message = patches.shape
    low, high = _padding(kernel)
    flat = patches.permute(0, 5, 6, 3, 4, 1, 2).reshape(batch, channels * message * kernel * kernel, rows * columns)
    # What `fold` takes are the sides whose patches there are; rows of the padded image that no patch reaches stay out.
    reached = ((rows - 1) * stride + kernel, (columns - 1) * stride + kernel)
    folded = F.fold(flat, reached, kernel, stride=stride).reshape(batch, channels, message, *reached)
    missing = [max(0, side + low + high - size) for side, size in zip(sides, reached, strict=True)]
    whole = F.pad(folded, (0, missing[1], 0, missing[0]))
    return whole[:, :, :, low : low + sides[0], low : low + sides[1]].permute(0, 3, 4, 1, 2)


@dataclass(frozen=True)
class Conv:
    """`conv_layer` with its shape.

    Attributes:
        sides: (H, W).
        inputs: I.
        outputs: O.
        kernel: k, >= 1.
        stride: >= 1.
    """

    sides: tuple[int, int]
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 2

    def __post_init__(self) -> None:
        """Refuse an empty kernel or stride."""
        if self.kernel < 1 or self.stride < 1:
            raise ConfigError(f"per-weight conv kernel and stride must be >= 1, got {self.kernel} and {self.stride}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Axes of forward messages in, between Bx and M."""
        return (*self.sides, self.inputs)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Axes of forward messages out, between Bx and M."""
        return (*(-(-side // self.stride) for side in self.sides), self.outputs)

    @property
    def edges(self) -> tuple[int, ...]:
        """Axes of the state, between Bx and its entries."""
        return (self.kernel, self.kernel, self.inputs, self.outputs)

    @property
    def fan_in(self) -> int:
        """Edges that an output reads."""
        return self.kernel**2 * self.inputs

    def __call__(
        self, cell: Cell, theta: Theta, state: EdgeState, forward: Tensor, backward: Tensor, ticks: int, reduce: Reduce
    ) -> tuple[EdgeState, Tensor, Tensor]:
        """Return `conv_layer` of the arguments."""
        return conv_layer(cell, theta, state, forward, backward, self.stride, ticks, reduce)
