"""A per-weight network as a learner: each inner step presents one batch, which it predicts before it sees the labels.

It needs tasks of examples with one label each; their model and its gradients play no part. Batches are presented side by side: examples
share the first half of every edge's state, which is averaged before each batch.

Legend: B examples in a training batch, R rows of another batch, C classes.

Source: Kirsch, Schmidhuber, 2021, "Meta learning backpropagation and improving it" (2012.14905).
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from metaopt.errors import TaskError
from metaopt.learners.learner import Carry, StepRecord
from metaopt.learners.per_weight.cell import CellSpec, LSTMCell, init_cell_theta
from metaopt.learners.per_weight.network import NetworkSpec, NetworkState, fresh_state, predict, present, stack_layers, with_examples
from metaopt.learners.update_rules import Theta
from metaopt.tasks.task import Batch, Task

__all__ = ["Layout", "VSMLLearner", "layout_of"]

_ROW_EDGES = 1 << 17  # edges times rows that a held-out batch predicts at a time: memory of some 100 MB

_Sizes = tuple[Annotated[int, Ge(1)], ...]


@dataclass(frozen=True)
class Layout:
    """What a network has to know of a task: the extent of an example, without a batch axis, and the number of classes."""

    extent: tuple[int, ...]
    classes: int


def layout_of(task: Task, batch: Batch) -> Layout:
    """Return the layout of a task's examples, which its program and a batch tell.

    The classes are those that its program, the program's stream or the stream's data set tell, whichever does first; the extent is that of
    the stream, or of the x of a batch.

    Raises:
        TaskError: the task has no examples with one label each.
    """
    program = task.program
    while hasattr(program, "program"):  # an augmentation around it
        program = program.program
    stream = getattr(program, "stream", None)
    known = (getattr(owner, "classes", 0) for owner in (program, stream, getattr(stream, "source", None)))
    classes = next((count for count in known if count), 0)
    x, y = batch.get("x"), batch.get("y")
    if classes < 2 or x is None or y is None or not x.is_floating_point() or y.is_floating_point() or y.dim() != 1:
        raise TaskError(
            f"a per-weight network needs a stream of numbers x [B, ...] with one label y [B] each and says how many classes there are;"
            f" {type(program).__name__} on {type(stream).__name__} has none; choose a task of classification"
        )
    extent = tuple(getattr(stream, "shape", ()))
    return Layout(extent if math.prod(extent) == math.prod(x.shape[1:]) and extent else tuple(x.shape[1:]), classes)


@dataclass(frozen=True)
class VSMLLearner:
    """The learner; theta are the cell's weights, the carry is the network's state.

    Its step's loss is the cross-entropy in nats of predictions made before the labels were seen, so that the episode is the learning curve.
    A batch with another number of examples than the run's (held-out data) is predicted, each row from the state as it is with private
    parts averaged, and nothing is learned from it.

    Attributes:
        hidden: widths of hidden dense layers.
        conv_channels: of convolutions before them; empty: images are flattened.
        kernel: of the convolutions.
        stride: of the convolutions.
        state: N, numbers in h and in c of an edge.
        message: M, channels of a message.
        input_bias: taken from input gates.
        forget_bias: added to forget gates.
        layer_norm: whether messages are normalised before they meet.
        ticks: micro-ticks of a layer in a sweep.
        schedule: one sweep up with the errors of the batch before, or one up and one down with the batch's own.
        reduce: how messages that meet become one.
        clear_backward: see `NetworkSpec`.
        feed_label: whether error messages hold the label too.
        logit_bound: L of the logits L tanh(z / L).
        tied: whether all layers share one theta.
    """

    hidden: _Sizes = ()
    conv_channels: _Sizes = ()
    kernel: Annotated[int, Ge(1)] = 3
    stride: Annotated[int, Ge(1)] = 2
    state: Annotated[int, Ge(2)] = 16
    message: Annotated[int, Ge(2)] = 8
    input_bias: float = 1.0
    forget_bias: float = 3.0
    layer_norm: bool = False
    ticks: Annotated[int, Ge(1)] = 2
    schedule: Literal["forward", "forward_backward"] = "forward"
    reduce: Literal["mean", "sum"] = "mean"
    clear_backward: bool = True
    feed_label: bool = False
    logit_bound: Annotated[float, Gt(0)] | None = 100.0
    tied: bool = True
    name: ClassVar[str] = "vsml"

    @property
    def cell(self) -> LSTMCell:
        """The cell on every edge."""
        return LSTMCell(CellSpec(self.state, self.message, self.input_bias, self.forget_bias, self.layer_norm))

    @property
    def depth(self) -> int:
        """Layers, K."""
        return len(self.conv_channels) + len(self.hidden) + 1

    def network(self, layout: Layout) -> NetworkSpec:
        """Return the network for a task's layout.

        Raises:
            ConfigError: convolutions for examples that are no images.
        """
        return NetworkSpec(
            stack_layers(layout.extent, layout.classes, self.hidden, self.conv_channels, self.kernel, self.stride),
            self.ticks,
            self.schedule,
            self.reduce,
            self.clear_backward,
            self.feed_label,
            self.logit_bound,
            tied=self.tied,
        )

    def init_theta(self, seed: int) -> Theta:
        """Return random weights of the cell, or of one for each layer."""
        prefixes = ["cell."] if self.tied else [f"layer{k}." for k in range(self.depth)]
        return {name: value for prefix in prefixes for name, value in init_cell_theta(self.cell.spec, seed, prefix).items()}

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return the state of a network that has seen nothing; the carry's names are those of `NetworkState`.

        Raises:
            TaskError: the task has no examples with one label each.
        """
        batch = task.batch(key, torch.zeros((), dtype=torch.int64, device=key.device))
        spec = self.network(layout_of(task, batch))
        return fresh_state(spec, self.cell, theta, key, len(batch["y"]))

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after a batch, and the raw loss of the predictions made before its labels."""
        spec, cell, x, y = self.network(layout_of(task, batch)), self.cell, batch["x"], batch["y"]
        if len(y) == _examples(carry):
            carry, logits = present(spec, cell, theta, carry, x, y)
        else:
            logits = self._predictions(spec, theta, carry, x)
        loss = -torch.log_softmax(logits, -1).gather(-1, y.unsqueeze(-1)).mean()
        return carry, StepRecord(loss * task.numbers["loss_scale"] if "loss_scale" in task.numbers else loss)

    def _predictions(self, spec: NetworkSpec, theta: Theta, state: NetworkState, x: Tensor) -> Tensor:
        """Return logits [R, C] of rows x [R, ...], some at a time."""
        rows = max(1, _ROW_EDGES // sum(math.prod(layer.edges) for layer in spec.layers))
        return torch.cat([predict(spec, self.cell, theta, with_examples(spec, state, len(part)), part)[1] for part in torch.split(x, rows)])


def _examples(carry: Carry) -> int:
    """Return how many examples a state is for."""
    return int(carry["edges"]["layer0"]["h"].shape[0])
