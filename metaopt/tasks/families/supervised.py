"""Programs of a model on a stream, and the one of models that predict: classes by cross-entropy, amounts by squared error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from metaopt.tasks.task import Batch, Numbers, Params

__all__ = ["Model", "Stream", "StreamProgram", "Supervised", "cross_entropy"]


class Stream(Protocol):
    """A source of batches with entries `x` and `y`; hashable."""

    def __hash__(self) -> int: ...

    def shared(self) -> Batch:
        """Return the data set."""

    def batch(self, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return a training batch, a function of key and step."""

    def heldout(self, shared: Batch) -> Batch:
        """Return examples that training never sees."""


class Weights(Protocol):
    """Something with fresh weights; hashable. Optional: `step_scales` and `embeddings`, see `Program`."""

    def __hash__(self) -> int: ...

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return fresh weights."""


class Model(Weights, Protocol):
    """An inner model that predicts."""

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return predictions [..., outputs]."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats of logits [..., C] and labels [...]."""
    return -F.log_softmax(logits, -1).gather(-1, labels.unsqueeze(-1)).mean()


@dataclass(frozen=True)
class StreamProgram:
    """What programs of a model on a stream have in common: all but the loss, and the cap.

    Numbers: `init_scale`, `reference` and `floor` (raw losses that are 1 and 0 on the common scale), `horizon`.
    """

    stream: Stream
    model: Weights

    @property
    def step_scales(self) -> Mapping[str, float]:
        """The model's step scales, {} if it has none."""
        scales: Mapping[str, float] = getattr(self.model, "step_scales", {})
        return scales

    @property
    def embeddings(self) -> frozenset[str]:
        """The names of the model's matrices whose rows are looked up."""
        names: frozenset[str] = getattr(self.model, "embeddings", frozenset())
        return names

    def shared(self) -> Batch:
        """Return the stream's data set."""
        return self.stream.shared()

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return the model's fresh weights at the task's initial scale."""
        return self.model.init(key, numbers["init_scale"])

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return a training batch of the stream."""
        return self.stream.batch(shared, key, step)

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the held-out examples."""
        return self.stream.heldout(shared)

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the loss with `floor` at 0 and `reference` at 1."""
        return (raw - numbers["floor"]) / (numbers["reference"] - numbers["floor"])


@dataclass(frozen=True)
class Supervised(StreamProgram):
    """Mean loss of a model's predictions on a stream, on a scale with the trivial predictor at 1 and a tuned optimizer at 0.

    Attributes:
        stream: batches of x and y.
        model: predicts from x.
        amounts: y are amounts: squared error of the model's only output; otherwise cross-entropy with the labels y.
    """

    model: Model
    amounts: bool = False
    cap: float = 4.0

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the mean cross-entropy in nats, or the mean squared error."""
        outputs = self.model.apply(params, batch["x"])
        return (outputs.squeeze(-1) - batch["y"]).square().mean() if self.amounts else cross_entropy(outputs, batch["y"])
