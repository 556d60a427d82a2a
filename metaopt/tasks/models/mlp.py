"""Fully connected networks.

Legend: B batch, D features, C classes. Weights are [out, in] (convolutions [out, in, height, width]), as in torch.
"""

from dataclasses import dataclass

from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.models.parts import ACTIVATIONS, check_parts, head_weight, linear, norm_params, normed, weight
from metaopt.tasks.task import Params

__all__ = ["MLP"]


@dataclass(frozen=True)
class MLP:
    """Fully connected layers `sizes[0] -> ... -> sizes[-1]`; between them a normalisation (one of `NORMS`), then an activation."""

    sizes: tuple[int, ...]
    activation: str
    initialiser: str = "normal"
    norm: str = "none"

    def __post_init__(self) -> None:
        """Refuse parts that do not exist and sizes that make no network."""
        check_parts(self.activation, self.initialiser, self.norm)
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise TaskError(f"MLP sizes must be at least two numbers >= 1, got {self.sizes}")

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights of the initialiser at `scale`, zero biases and unit gains."""
        params: Params = {}
        last = len(self.sizes) - 2
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            draw = weight if i < last else head_weight
            params[f"layer{i}.weight"] = draw(seeds.fold_in(key, i), (fan_out, fan_in), scale, self.initialiser)
            params[f"layer{i}.bias"] = scale.new_zeros(fan_out)
            if i < last:
                params |= norm_params(self.norm, f"norm{i}", fan_out, scale)
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, C] of inputs [B, ...], flattened to [B, D]."""
        last = len(self.sizes) - 2
        hidden = inputs.reshape(inputs.shape[0], -1)
        for i in range(last):
            hidden = normed(self.norm, params, f"norm{i}", linear(params, f"layer{i}", hidden))
            hidden = ACTIVATIONS[self.activation](hidden)
        return linear(params, f"layer{last}", hidden)
