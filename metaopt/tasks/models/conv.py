"""Convolutional networks.

Legend: B batch, D features, C classes. Weights are [out, in] (convolutions [out, in, height, width]), as in torch.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.tasks.models.parts import ACTIVATIONS, linear, weight
from metaopt.tasks.task import Params

__all__ = ["ConvNet"]


@dataclass(frozen=True)
class ConvNet:
    """3 x 3 convolutions (first stride 1, then 2) on square grey images, mean pooling, one linear layer."""

    side: int
    channels: tuple[int, ...]
    classes: int
    activation: str

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights N(0, scale^2 / fan_in) and zero biases."""
        params: Params = {}
        for i, (fan_in, fan_out) in enumerate(zip((1, *self.channels), self.channels, strict=False)):
            params[f"conv{i}.weight"] = weight(seeds.fold_in(key, i), (fan_out, fan_in, 3, 3), scale)
            params[f"conv{i}.bias"] = scale.new_zeros(fan_out)
        params["head.weight"] = weight(seeds.fold_in(key, len(self.channels)), (self.classes, self.channels[-1]), scale)
        params["head.bias"] = scale.new_zeros(self.classes)
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, C] of inputs [B, side * side]."""
        hidden = inputs.reshape(-1, 1, self.side, self.side)
        for i in range(len(self.channels)):
            hidden = F.conv2d(hidden, params[f"conv{i}.weight"], params[f"conv{i}.bias"], stride=1 if i == 0 else 2, padding=1)
            hidden = ACTIVATIONS[self.activation](hidden)
        return linear(params, "head", hidden.mean((-2, -1)))
