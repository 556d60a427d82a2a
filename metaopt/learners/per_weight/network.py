"""A network whose weights are small recurrent machines: it learns by being run forward, on examples and on their errors.

    state = fresh_state(spec, cell, theta, key, examples)
    state, logits = present(spec, cell, theta, state, x, y)      # predict first, then see the label

`present` is `predict` followed by `learn`; who only wants predictions throws the state of `predict` away. With the schedule `forward` the
layers run once an example, upwards, and each sees backward messages of the example before: layer k of K reacts to an error K - k + 1
examples late. With `forward_backward` a second sweep goes down with the error of the same example, while each layer still has its forward
input.

Legend: Bx examples side by side, F features, C classes, M message size, K layers.

Source: Kirsch, Schmidhuber, 2021, "Meta learning backpropagation and improving it" (2012.14905), sections 3 and 4, and its release (ticks,
squashed logits, shared half of the state). Differs: `clear_backward` clears the messages of all layers, not of the last one only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners.per_weight.conv import Conv
from metaopt.learners.per_weight.dense import Dense
from metaopt.learners.per_weight.edge import Cell, Reduce, Theta, expand_state, share

__all__ = [
    "SCHEDULES",
    "NetworkSpec",
    "NetworkState",
    "fresh_state",
    "label_error",
    "layer_theta",
    "learn",
    "predict",
    "present",
    "stack_layers",
    "with_examples",
]

# `edges`: layer -> entries of the state; `backward`: layer -> messages that its next forward sweep sees; after `predict`, with a backward
# sweep to come, `forward`: layer -> what it has seen.
NetworkState = dict[str, dict[str, Any]]
Layer = Dense | Conv
SCHEDULES = ("forward", "forward_backward")


@dataclass(frozen=True)
class NetworkSpec:
    """How cells are wired and run; everything static.

    Attributes:
        layers: from inputs to classes; see `stack_layers`.
        ticks: micro-ticks of each layer in each sweep, >= 1.
        schedule: see the module.
        reduce: how messages that meet become one; the release takes means, the paper's formulas sums.
        clear_backward: whether a forward sweep that a backward sweep follows sees zeros in place of old backward messages.
        feed_label: whether channel 1 of the error messages holds the label itself.
        logit_bound: L of the logits L tanh(z / L); None for z.
        logit_channel: channel of the last forward messages that holds z, in [0, M).
        tied: whether all layers have one theta, named `cell.*`; otherwise layer k has its own, `layer<k>.*`.
    """

    layers: tuple[Layer, ...]
    ticks: int = 2
    schedule: Literal["forward", "forward_backward"] = "forward"
    reduce: Reduce = "mean"
    clear_backward: bool = True
    feed_label: bool = False
    logit_bound: float | None = 100.0
    logit_channel: int = 1
    tied: bool = True

    def __post_init__(self) -> None:
        """Refuse layers that do not fit each other, and what is out of range."""
        if not self.layers or len(self.layers[-1].output_shape) != 1:
            raise ConfigError(f"per-weight layers must end in a dense one, got {self.layers}")
        for below, above in zip(self.layers, self.layers[1:], strict=False):
            if math.prod(below.output_shape) != math.prod(above.input_shape):
                raise ConfigError(f"per-weight layers do not fit: {below} gives {below.output_shape}, {above} takes {above.input_shape}")
        if self.ticks < 1:
            raise ConfigError(f"per-weight ticks must be >= 1, got {self.ticks}")
        if self.logit_channel < 0:
            raise ConfigError(f"per-weight logit_channel must be >= 0, got {self.logit_channel}")
        for name, value, allowed in (("schedule", self.schedule, SCHEDULES), ("reduce", self.reduce, ("mean", "sum"))):
            if value not in allowed:
                raise ConfigError(f"per-weight {name} must be one of {', '.join(allowed)}, got {value!r}")

    @property
    def classes(self) -> int:
        """C."""
        return self.layers[-1].output_shape[0]

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Prefix of each layer's names in theta."""
        return tuple("cell." if self.tied else f"{name}." for name in self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Key of each layer in a state."""
        return tuple(f"layer{k}" for k in range(len(self.layers)))


def stack_layers(
    extent: tuple[int, ...], classes: int, hidden: tuple[int, ...] = (), channels: tuple[int, ...] = (), kernel: int = 3, stride: int = 2
) -> tuple[Layer, ...]:
    """Return convolutions of so many channels, then dense layers of so many hidden units, then the classes.

    Args:
        extent: of an example: (F,), or (channels, height, width), which `channels` needs.
        classes: C, >= 2.
        hidden: widths of hidden dense layers.
        channels: of the convolutions; empty: inputs are flattened.
        kernel, stride: of the convolutions.

    Raises:
        ConfigError: convolutions of examples that are no images, or fewer than two classes.
    """
    if classes < 2:
        raise ConfigError(f"per-weight classes must be >= 2, got {classes}")
    layers: list[Layer] = []
    if channels:
        if len(extent) != 3:
            raise ConfigError(
                f"per-weight convolutions need examples of (channels, height, width), got {extent}; leave conv_channels empty"
            )
        inputs, sides = extent[0], (extent[1], extent[2])
        for outputs in channels:
            layers.append(Conv(sides, inputs, outputs, kernel, stride))
            height, width, inputs = layers[-1].output_shape
            sides = (height, width)
    width = math.prod(layers[-1].output_shape if layers else extent)
    for outputs in (*hidden, classes):
        layers.append(Dense(width, outputs))
        width = outputs
    return tuple(layers)


def layer_theta(spec: NetworkSpec, theta: Theta, k: int) -> Mapping[str, Tensor]:
    """Return the entries of theta that layer k uses, without their prefix."""
    prefix = spec.prefixes[k]
    return {name.removeprefix(prefix): value for name, value in theta.items() if name.startswith(prefix)}


def fresh_state(spec: NetworkSpec, cell: Cell, theta: Theta, key: Tensor, examples: int = 1) -> NetworkState:
    """Return the state of a network that has seen nothing: no messages, and the cell's own fresh edges, equal for all examples."""
    edges, backward = {}, {}
    for k, (name, layer) in enumerate(zip(spec.names, spec.layers, strict=True)):
        drawn = cell.fresh(layer_theta(spec, theta, k), seeds.fold_in(key, k), layer.edges, layer.fan_in)
        edges[name] = {entry: value.expand(examples, *value.shape) for entry, value in drawn.items()}
        if _keeps(spec, k):
            backward[name] = _no_messages(cell, layer, next(iter(edges[name].values())))
    return {"edges": edges, "backward": backward}


def predict(spec: NetworkSpec, cell: Cell, theta: Theta, state: NetworkState, x: Tensor) -> tuple[NetworkState, Tensor]:
    """Return (the state after a forward sweep, logits [Bx, C]) of inputs x [Bx, ...], floating, whose other axes are flattened.

    Images are (channels, height, width), flattened in this order.
    """
    signal = _encode(spec, cell, x)
    edges, seen, sent = {}, {}, {}
    for k, (name, layer) in enumerate(zip(spec.names, spec.layers, strict=True)):
        signal = seen[name] = signal.reshape(len(x), *layer.input_shape, cell.message)
        shared = share(cell, state["edges"][name])
        back = state["backward"].get(name)
        if back is None:
            back = _no_messages(cell, layer, signal)
        edges[name], signal, down = layer(cell, layer_theta(spec, theta, k), shared, signal, back, spec.ticks, spec.reduce)
        if k:
            sent[spec.names[k - 1]] = down.reshape(len(x), *spec.layers[k - 1].output_shape, cell.message)
    z = signal[..., spec.logit_channel]
    logits = z if spec.logit_bound is None else spec.logit_bound * torch.tanh(z / spec.logit_bound)
    if spec.schedule == "forward":
        # An example without a label has no error, until `learn` says so.
        last = _no_messages(cell, spec.layers[-1], signal)
        return {"edges": edges, "backward": {**sent, spec.names[-1]: last}}, logits
    return {"edges": edges, "backward": state["backward"], "forward": seen}, logits


def learn(spec: NetworkSpec, cell: Cell, theta: Theta, state: NetworkState, logits: Tensor, y: Tensor) -> NetworkState:
    """Return the state that `predict` returned after the labels y [Bx], int64, of its logits [Bx, C]."""
    back = label_error(spec, cell, logits, y)
    if spec.schedule == "forward":
        return {"edges": state["edges"], "backward": {**state["backward"], spec.names[-1]: back}}
    edges, kept = dict(state["edges"]), {}
    for k in reversed(range(len(spec.layers))):
        name, layer = spec.names[k], spec.layers[k]
        back = back.reshape(len(logits), *layer.output_shape, cell.message)
        if _keeps(spec, k):
            kept[name] = back
        weights = layer_theta(spec, theta, k)
        edges[name], _, back = layer(cell, weights, edges[name], state["forward"][name], back, spec.ticks, spec.reduce)
    return {"edges": edges, "backward": {name: kept[name] for name in spec.names if name in kept}}


def present(spec: NetworkSpec, cell: Cell, theta: Theta, state: NetworkState, x: Tensor, y: Tensor) -> tuple[NetworkState, Tensor]:
    """Return (state, logits [Bx, C]) after labelled examples; the logits are those from before their labels."""
    state, logits = predict(spec, cell, theta, state, x)
    return learn(spec, cell, theta, state, logits, y), logits


def label_error(spec: NetworkSpec, cell: Cell, logits: Tensor, y: Tensor) -> Tensor:
    """Return the backward messages [Bx, C, M] into the last layer: the cross-entropy's derivative by the logits, maybe the label."""
    label = (y.unsqueeze(-1) == torch.arange(spec.classes, device=y.device)).to(logits.dtype)
    error = torch.softmax(logits, -1) - label
    channels = [error, label] if spec.feed_label else [error]
    return F.pad(torch.stack(channels, -1), (0, cell.message - len(channels)))


def with_examples(spec: NetworkSpec, state: NetworkState, examples: int) -> NetworkState:
    """Return a state for another number of examples side by side: what is shared stays, what is private is averaged."""
    return {
        "edges": {name: expand_state(entries, examples) for name, entries in state["edges"].items()},
        "backward": expand_state(state["backward"], examples),
    }


def _keeps(spec: NetworkSpec, k: int) -> bool:
    """Return whether layer k's backward messages outlive an example."""
    if spec.schedule == "forward":
        return True
    return not spec.clear_backward and k < len(spec.layers) - 1


def _no_messages(cell: Cell, layer: Layer, like: Tensor) -> Tensor:
    return like.new_zeros((like.shape[0], *layer.output_shape, cell.message))


def _encode(spec: NetworkSpec, cell: Cell, x: Tensor) -> Tensor:
    """Return the first forward messages [Bx, inputs, M]: each feature in channel 0 of its own."""
    first = spec.layers[0]
    if isinstance(first, Conv):
        x = x.reshape(len(x), first.inputs, *first.sides).movedim(1, -1)
    return F.pad(x.reshape(len(x), -1, 1), (0, cell.message - 1))
