"""Convolutional networks on images and on sequences.

Legend: B batch, C classes. Weights are [out, in] (convolutions [out, in, height, width] or [out, in, length]), as in torch.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.models.parts import ACTIVATIONS, check_parts, head_weight, linear, norm_params, normed, weight
from metaopt.tasks.task import Params

__all__ = ["ConvNet", "convolution"]

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d}


def convolution(params: Params, name: str, hidden: Tensor, stride: int) -> Tensor:
    """Return a convolution of hidden [B, in, ...] with zero padding; a kernel of odd extent leaves the extent alone at stride 1."""
    kernel = params[f"{name}.weight"]
    convolve = _CONVOLUTIONS[hidden.dim() - 2]
    return convolve(hidden, kernel, params[f"{name}.bias"], stride=stride, padding=kernel.shape[-1] // 2)


@dataclass(frozen=True)
class ConvNet:
    """Convolutions of extent 3 (the first of stride `first_stride`, then 2), pooling over all positions, one linear layer.

    Attributes:
        shape: channels, height and width of an input; or channels and length of a sequence.
        channels: output channels of each convolution, at least one.
        pooling: "mean" or "max" over positions.
    """

    shape: tuple[int, ...]
    channels: tuple[int, ...]
    classes: int
    activation: str
    initialiser: str = "normal"
    norm: str = "none"
    first_stride: int = 1
    pooling: str = "mean"

    def __post_init__(self) -> None:
        """Refuse parts that do not exist and shapes that make no network."""
        check_parts(self.activation, self.initialiser, self.norm)
        if not self.channels or min(self.channels) < 1:
            raise TaskError(f"ConvNet channels must be at least one number >= 1, got {self.channels}")
        if len(self.shape) not in (2, 3):
            raise TaskError(f"ConvNet shape must be (channels, height, width) or (channels, length), got {self.shape}")
        if self.pooling not in ("mean", "max"):
            raise TaskError(f"ConvNet pooling must be mean or max, got {self.pooling!r}")

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights of the initialiser at `scale`, zero biases and unit gains."""
        params: Params = {}
        kernel = (3,) * (len(self.shape) - 1)
        for i, (fan_in, fan_out) in enumerate(zip((self.shape[0], *self.channels), self.channels, strict=False)):
            params[f"conv{i}.weight"] = weight(seeds.fold_in(key, i), (fan_out, fan_in, *kernel), scale, self.initialiser)
            params[f"conv{i}.bias"] = scale.new_zeros(fan_out)
            params |= norm_params(self.norm, f"norm{i}", fan_out, scale)
        head = (self.classes, self.channels[-1])
        params["head.weight"] = head_weight(seeds.fold_in(key, len(self.channels)), head, scale, self.initialiser)
        params["head.bias"] = scale.new_zeros(self.classes)
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, C] of inputs [B, *shape], flattened or not."""
        hidden = inputs.reshape(-1, *self.shape)
        for i in range(len(self.channels)):
            hidden = convolution(params, f"conv{i}", hidden, self.first_stride if i == 0 else 2)
            hidden = ACTIVATIONS[self.activation](normed(self.norm, params, f"norm{i}", hidden, channel_axis=1))
        hidden = hidden.flatten(2)
        return linear(params, "head", hidden.mean(-1) if self.pooling == "mean" else hidden.amax(-1))
