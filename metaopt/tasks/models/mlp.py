"""Fully connected networks.

Legend: B batch, D features, C classes. Weights are [out, in] (convolutions [out, in, height, width]), as in torch.
"""

from dataclasses import dataclass

from torch import Tensor

from metaopt import seeds
from metaopt.tasks.models.parts import ACTIVATIONS, linear, weight
from metaopt.tasks.task import Params

__all__ = ["MLP"]


@dataclass(frozen=True)
class MLP:
    """Fully connected layers `sizes[0] -> ... -> sizes[-1]`, an activation between them."""

    sizes: tuple[int, ...]
    activation: str

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights N(0, scale^2 / fan_in) and zero biases."""
        params: Params = {}
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            params[f"layer{i}.weight"] = weight(seeds.fold_in(key, i), (fan_out, fan_in), scale)
            params[f"layer{i}.bias"] = scale.new_zeros(fan_out)
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, C] of inputs [B, D]."""
        last = len(self.sizes) - 2
        hidden = inputs
        for i in range(last):
            hidden = ACTIVATIONS[self.activation](linear(params, f"layer{i}", hidden))
        return linear(params, f"layer{last}", hidden)
